package broker

import "runtime/metrics"

// Resources is what the alarms look at, in bytes; a limit of 0 is none.
type Resources struct {
	MemoryUsed, MemoryLimit uint64
	DiskFree, DiskFreeLimit uint64
	MemoryAlarm, DiskAlarm  bool
}

// Resources looks at memory and disk now.
func (b *Broker) Resources() Resources {
	r := Resources{MemoryUsed: memoryUsed(newMemorySamples())}
	b.sampler.mu.Lock()
	r.MemoryLimit, r.DiskFreeLimit = b.sampler.memory, b.sampler.disk
	b.sampler.mu.Unlock()
	r.DiskFree, _ = b.store.FreeSpace() // 0 if it cannot be told
	b.alarms.mu.Lock()
	defer b.alarms.mu.Unlock()
	r.MemoryAlarm = b.alarms.on&alarmMemory != 0
	r.DiskAlarm = b.alarms.on&(alarmDisk|alarmStorage) != 0
	return r
}

// SetMemoryLimit changes the size of the process, in bytes, beyond which publishers are held back; 0 is no limit. It
// lasts until the broker stops, and counts at once.
func (b *Broker) SetMemoryLimit(limit uint64) { b.sampler.set(&b.sampler.memory, limit) }

// SetDiskFreeLimit changes the free space, in bytes, below which publishers are held back; 0 is no limit. It lasts
// until the broker stops, and counts at once.
func (b *Broker) SetDiskFreeLimit(limit uint64) { b.sampler.set(&b.sampler.disk, limit) }

func (s *sampler) set(limit *uint64, to uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*limit = to
	s.alarmLocked(true)
}

func newMemorySamples() []metrics.Sample {
	return []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
}

// memoryUsed is the size of the process, without what was given back to the system.
func memoryUsed(samples []metrics.Sample) uint64 {
	metrics.Read(samples)
	return samples[0].Value.Uint64() - samples[1].Value.Uint64()
}
