package broker

import (
	"path/filepath"

	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage"
	streams "github.com/settmq/settmq/stream"
)

// openStreams starts the engine of the streams beside the store.
func (b *Broker) openStreams(o storage.Options) (err error) {
	b.streams, err = streams.OpenEngine(streams.EngineOptions{
		Dir: streamsDir(o), FS: o.FS, Store: b.store, Log: o.Log,
	})
	return err
}

// RecoverStreams gives up what cannot be read of the streams in a data directory, as storage.Open with AcceptLoss
// does of everything else. The caller has the directory open.
func RecoverStreams(o storage.Options) error {
	return streams.Recover(streamsDir(o), o.FS, o.OnLoss)
}

func streamsDir(o storage.Options) string { return filepath.Join(o.Dir, "streams") }

// openStream makes the live stream of d. created is nil for one that was there before.
func (v *VHost) openStream(id uint64, d QueueDeclare, created func() error) (Queue, error) {
	return v.broker.streams.Open(streams.Options{
		Declaration: queue.Declaration{ID: id, Name: d.Name, Durable: true, Arguments: d.Arguments},
		Label:       v.resource(QueueResource, d.Name),
		Settings:    v.settings(d),
		Created:     created,
		OnFault: func(s *streams.Stream, err error) {
			v.broker.log.Error().Err(err).Str("vhost", v.name).Str("queue", s.Name).
				Msg("stored messages cannot be read, their consumers are cancelled: stop the broker and run `settmq recover --accept-loss` to go on without them")
		},
	})
}

// newStreamLocked makes a stream that is being declared. Its record must be given to the store under the same lock.
func (v *VHost) newStreamLocked(id uint64, d QueueDeclare) Queue {
	q, err := v.openStream(id, d, func() error {
		// Not for an empty change, which may itself wait for what waits for the stream.
		v.mu.RLock()
		t := v.last // of the record, or of something after it
		v.mu.RUnlock()
		return t.Wait()
	})
	if err != nil {
		panic("a stream without files does not open: " + err.Error())
	}
	return q
}

// isStream reports whether a queue keeps every message, whatever its delivery mode, in files of its own.
func isStream(q Queue) bool {
	_, ok := q.(*streams.Stream)
	return ok
}

// removeFiles deletes the files of a deleted queue that has its own, once the deletion is on disk. What a failure
// leaves is removed at the next start.
func (v *VHost) removeFiles(q Queue) {
	s, ok := q.(*streams.Stream)
	if !ok {
		return
	}
	if err := s.Remove(); err != nil {
		v.broker.log.Error().Err(err).Str("vhost", v.name).Str("queue", s.Name).Msg("files of a deleted stream are left behind")
	}
}
