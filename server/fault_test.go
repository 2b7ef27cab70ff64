package server

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/storage/journal/faultfs"
)

// A message that the store cannot take any more is nacked, and one whose sync failed is
// never confirmed.
func TestPublishesToAFailedStoreAreNacked(t *testing.T) {
	fs := faultfs.New(1)
	died := make(chan error, 1)
	o := brokerOptions(t, t.TempDir(), fs)
	o.Storage.OnFailure = func(err error) { died <- err }
	b, err := broker.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	s := New(serverOptions(b))
	client, server := net.Pipe()
	t.Cleanup(func() {
		_ = client.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		s.Shutdown(ctx)
		if err := b.Close(); err == nil {
			t.Error("a store that has failed closes without a word")
		}
	})
	s.accept(server)
	p := newPeer(t, client)
	go p.read()
	p.login(plain("guest", "guest"))
	p.open(0)
	p.channel(1)
	p.send(1, &amqp.QueueDeclare{Queue: "q", Durable: true})
	expect[*amqp.QueueDeclareOk](p, 1)
	p.send(1, &amqp.ConfirmSelect{})
	expect[*amqp.ConfirmSelectOk](p, 1)

	persistent := func() { p.write(publishFrames(1, "", "q", true, []byte("m"))) }
	persistent()
	if m := expect[*amqp.BasicAck](p, 1); m.DeliveryTag != 1 {
		t.Fatalf("confirmed %d", m.DeliveryTag)
	}
	fs.FailFrom(faultfs.OpSync, 1, errors.New("the disk is gone"))
	persistent()
	<-died
	persistent()
	if m := expect[*amqp.BasicNack](p, 1); m.DeliveryTag != 3 || m.Multiple {
		t.Errorf("nack of %d, multiple %v", m.DeliveryTag, m.Multiple)
	}
}
