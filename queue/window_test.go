package queue

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/storage"
)

// encoded are properties with these headers.
func encoded(headers ...amqp.Field) []byte {
	p := amqp.Properties{Flags: amqp.PropHeaders, Headers: amqp.Table(headers).Append(nil)}
	return p.Append(nil)
}

func TestKeysTellValuesApartAsThePluginDoes(t *testing.T) {
	withKey := func(v amqp.Value) []byte { return encoded(amqp.Field{Name: DeduplicationHeader, Value: v}) }
	byID := amqp.Properties{Flags: amqp.PropMessageID, MessageID: []byte("a")}
	keys := make(map[Key]string)
	for _, c := range []struct {
		name string
		same []amqp.Value
	}{
		{"a", []amqp.Value{amqp.String("a"), amqp.Binary([]byte("a"))}},
		{"empty", []amqp.Value{amqp.String(""), amqp.Binary(nil)}},
		{"1", []amqp.Value{amqp.Int8(1), amqp.Uint8(1), amqp.Int16(1), amqp.Uint16(1), amqp.Int32(1), amqp.Uint32(1), amqp.Int64(1), amqp.Timestamp(1)}},
		{"text 1", []amqp.Value{amqp.String("1")}},
		{"-1", []amqp.Value{amqp.Int8(-1), amqp.Int64(-1)}},
		{"1.0", []amqp.Value{amqp.Float32(1), amqp.Float64(1)}},
		{"true", []amqp.Value{amqp.Bool(true)}},
		{"false", []amqp.Value{amqp.Bool(false)}},
		{"nothing", []amqp.Value{amqp.Void()}},
	} {
		first, _ := KeyOf(withKey(c.same[0]), false)
		if other, taken := keys[first]; taken {
			t.Errorf("%s has the key of %s", c.name, other)
		}
		keys[first] = c.name
		for _, v := range c.same {
			if k, ok := KeyOf(withKey(v), false); !ok || k != first {
				t.Errorf("%s: the %s has the key %x, %v instead of %x", c.name, v.TypeName(), k, ok, first)
			}
		}
	}
	for _, none := range []amqp.Value{amqp.ArrayValue(amqp.Int8(1)), amqp.TableValue(nil), amqp.Decimal(1, 1)} {
		if _, ok := KeyOf(withKey(none), true); ok {
			t.Errorf("%s is a key", none.TypeName())
		}
	}
	if _, ok := KeyOf(byID.Append(nil), false); ok {
		t.Error("a message-id is a key unasked")
	}
	if k, ok := KeyOf(byID.Append(nil), true); !ok || keys[k] != "a" {
		t.Error("a message-id is not the key that the same header is")
	}
	byID.Flags |= amqp.PropHeaders
	byID.Headers = amqp.Table{{Name: DeduplicationHeader, Value: amqp.Int8(1)}}.Append(nil)
	if k, _ := KeyOf(byID.Append(nil), true); keys[k] != "1" {
		t.Error("the header does not go before the message-id")
	}
}

// windowModel is what a window has to know and what it must not know.
type windowModel struct {
	t     *testing.T
	rng   *rand.Rand
	now   int64
	size  int
	order []Key // as remembered
	until map[Key]int64
	place map[Key]int // in order
}

func (m *windowModel) key() Key {
	k, _ := keyOfValue(amqp.Int64(int64(m.rng.IntN(300))))
	return k
}

func (m *windowModel) check(w *Window, k Key) bool {
	m.t.Helper()
	knows := w.Knows(k)
	place, was := m.place[k]
	switch {
	case knows && (!was || m.until[k] <= m.now):
		m.t.Fatalf("a key is known that nobody remembered, or too long: until %d, it is %d", m.until[k], m.now)
	case !knows && was && m.until[k] > m.now && len(m.order)-place <= m.size:
		m.t.Fatalf("one of the newest %d keys is forgotten", m.size)
	}
	return knows
}

func (m *windowModel) publish(w *Window, store bool) {
	k := m.key()
	if m.check(w, k) {
		return
	}
	ttl := int64(1000)
	var headers []amqp.Field
	if m.rng.IntN(3) == 0 {
		ttl = int64(m.rng.IntN(5000))
		headers = append(headers, amqp.Field{Name: ttlHeader, Value: amqp.Int64(ttl)})
	}
	msg := &storage.Message{Properties: encoded(headers...), Followed: true}
	msg.Targets.Store(1)
	w.Remember(k, msg, store)
	if ttl > 0 {
		m.until[k], m.place[k] = m.now+ttl, len(m.order)
		m.order = append(m.order, k)
	}
	if n := w.Len(); n > m.size {
		m.t.Fatalf("%d keys are remembered, the limit is %d", n, m.size)
	}
}

func TestWindowAgainstItsModel(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 1))
			m := &windowModel{t: t, rng: rng, now: 1_000_000, size: 1 + rng.IntN(200), until: map[Key]int64{}, place: map[Key]int{}}
			limits := WindowLimits{Size: int64(m.size), TTL: 1000}
			dir := t.TempDir()
			store := openStore(t, dir)
			id := store.NextID()
			store.Apply(storage.Change{CreateQueues: []uint64{id}})
			w := NewWindow(store.Queue(id), func() int64 { return m.now }, limits)
			for range 3 {
				for range 2000 {
					m.publish(w, true)
					m.now += int64(rng.IntN(10))
				}
				if err := store.Close(); err != nil {
					t.Fatal(err)
				}
				store = openStore(t, dir)
				w = NewWindow(store.Queue(id), func() int64 { return m.now }, limits)
			}
			for k := range m.place {
				m.check(w, k)
			}
			m.now += 10_000
			w.Sweep()
			if n, stored := w.Len(), store.Queue(id).State().Ready; n > 0 || stored > 0 {
				t.Errorf("%d keys are left in memory and %d on disk after their time", n, stored)
			}
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// One message that is remembered for long does not keep the memory of all that came after it.
func TestWindowLetsGoOfWhatIsForgottenInBetween(t *testing.T) {
	now := int64(1)
	w := NewWindow(nil, func() int64 { return now }, WindowLimits{Size: 1 << 40, TTL: 1})
	long := &storage.Message{Properties: encoded(amqp.Field{Name: ttlHeader, Value: amqp.Int64(1 << 40)})}
	short := &storage.Message{}
	w.Remember(Key{1}, long, false)
	for i := range 100_000 {
		k, _ := keyOfValue(amqp.Int64(int64(i)))
		w.Remember(k, short, false)
		now++
		if w.Knows(k) {
			t.Fatal("known after its time")
		}
	}
	if !w.Knows(Key{1}) || w.Len() != 1 || cap(w.entries) > 10_000 {
		t.Fatalf("%d keys, room for %d", w.Len(), cap(w.entries))
	}
}

func TestWindowObeysSmallerLimits(t *testing.T) {
	w := NewWindow(nil, func() int64 { return 1 }, WindowLimits{Size: 10_000})
	key := func(i int) Key {
		k, _ := keyOfValue(amqp.Int64(int64(i)))
		return k
	}
	for i := range 10_000 {
		w.Remember(key(i), &storage.Message{}, false)
	}
	w.SetLimits(WindowLimits{Size: 3})
	w.Sweep()
	if w.Len() != 3 || !w.Knows(key(9_997)) || w.Knows(key(9_996)) {
		t.Fatalf("%d keys are left, want the newest 3", w.Len())
	}
}
