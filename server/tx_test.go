package server

import (
	"testing"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/storage"
)

func TestTransactionsAreBounded(t *testing.T) {
	tx := &transaction{bytes: maxTransaction - 10}
	m := &storage.Message{Body: make([]byte, 10)}
	if err := tx.publish(m, &broker.Route{}, false); err != nil {
		t.Errorf("refused what fits: %v", err)
	}
	err := tx.publish(&storage.Message{Body: []byte{1}}, &broker.Route{}, false)
	if err == nil || err.Code != amqp.ReplyResourceError || !err.Connection() {
		t.Errorf("a byte too many gives %v", err)
	}
}
