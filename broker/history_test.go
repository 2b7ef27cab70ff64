package broker

import (
	"bytes"
	"slices"
	"strconv"
	"testing"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage"
)

func historyExchange(t *testing.T, b *Broker, length int32) *VHost {
	t.Helper()
	v := b.VHost("/")
	declareExchange(t, v, "x", "x-recent-history", field("x-recent-history-length", amqp.Int32(length)))
	return v
}

func publishTo(t *testing.T, v *VHost, exchange string, bodies ...[]byte) {
	t.Helper()
	r := v.NewRouter()
	for _, body := range bodies {
		var (
			p amqp.Properties
			w queue.Wakes
		)
		rt, err := r.Route([]byte(exchange), []byte("k"), &p)
		must(t, err)
		rt.Publish(&storage.Message{Exchange: exchange, RoutingKey: "k", Properties: p.Append(nil), Body: body}, &w)
	}
}

func remembers(v *VHost, exchange string) (bodies []string) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for _, m := range v.exchanges[exchange].history.messages() {
		bodies = append(bodies, string(m.Body))
	}
	return bodies
}

func TestHistoryIsBoundedInBytes(t *testing.T) {
	v := historyExchange(t, newBroker(t), 1<<30)
	body := bytes.Repeat([]byte("x"), 4<<20)
	for range 40 {
		publishTo(t, v, "x", body)
	}
	if n := len(remembers(v, "x")); n == 0 || n > maxHistory/len(body) {
		t.Errorf("%d messages of 4 MiB are remembered", n)
	}
}

// TestHistoryComesBackTrimmed: what was forgotten before a restart is not stored any more.
func TestHistoryComesBackTrimmed(t *testing.T) {
	o := testOptions(t, t.TempDir(), nil)
	b := open(t, o)
	v := historyExchange(t, b, 3)
	for i := range 10 {
		publishTo(t, v, "x", []byte(strconv.Itoa(i)))
	}
	v.mu.RLock()
	id := v.exchanges["x"].storeID
	v.mu.RUnlock()
	closeBroker(t, b)
	b = open(t, o)
	v = b.VHost("/")
	if got := remembers(v, "x"); !slices.Equal(got, []string{"7", "8", "9"}) {
		t.Errorf("after a restart: %q", got)
	}
	if n := b.store.Queue(id).State().Ready; n != 3 {
		t.Errorf("%d messages are stored, want 3", n)
	}
	must(t, v.DeleteExchange(System{}, "x", false))
	closeBroker(t, b)
	b = open(t, o)
	if b.store.Queue(id) != nil {
		t.Error("the store of a deleted exchange is still there")
	}
	closeBroker(t, b)
}

// TestHistoryCountsForConfirms: a persistent message that goes nowhere else is confirmed when the
// history is on disk, one that is not to be remembered at once.
func TestHistoryCountsForConfirms(t *testing.T) {
	v := historyExchange(t, newBroker(t), 3)
	r := v.NewRouter()
	for _, noStore := range []bool{false, true} {
		p := amqp.Properties{Flags: amqp.PropHeaders, Headers: amqp.Table{field("x-recent-history-no-store", amqp.Bool(noStore))}.Append(nil)}
		rt, err := r.Route([]byte("x"), []byte("k"), &p)
		must(t, err)
		done := make(confirmed, 1)
		m := &storage.Message{Exchange: "x", Properties: p.Append(nil), Body: []byte("m"), Confirm: done, ConfirmSeq: 1}
		if !rt.Stores(m) || !rt.Unroutable() {
			t.Fatalf("stores: %t, unroutable: %t", rt.Stores(m), rt.Unroutable())
		}
		var w queue.Wakes
		rt.Publish(m, &w)
		<-done
	}
	if got := remembers(v, "x"); len(got) != 1 {
		t.Errorf("remembers %q", got)
	}
}

type confirmed chan struct{}

func (c confirmed) Confirm([]uint64, bool) { c <- struct{}{} }
