package server

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/settmq/settmq/amqp"
)

// confirmClient is what a publisher makes of the acks and nacks it gets.
type confirmClient struct {
	outcome map[uint64]bool // seq → acked (false: nacked), first one counts
	low     uint64          // every seq below has an outcome
}

// read applies encoded frames, and says what is wrong with them.
func (c *confirmClient) read(b []byte, last uint64, settled map[uint64]bool) error {
	for len(b) > 0 {
		f, n, err := amqp.ParseFrame(b, 4096)
		if err != nil || n == 0 {
			return fmt.Errorf("bad frame in %x: %v", b, err)
		}
		b = b[n:]
		m, err := amqp.ParseMethod(f.Payload)
		if err != nil {
			return err
		}
		if f.Channel != 7 {
			return fmt.Errorf("%s on channel %d", m.ID(), f.Channel)
		}
		switch m := m.(type) {
		case *amqp.BasicAck:
			err = c.apply(m.DeliveryTag, m.Multiple, true, last, settled)
		case *amqp.BasicNack:
			err = c.apply(m.DeliveryTag, m.Multiple, false, last, settled)
		default:
			err = fmt.Errorf("unexpected %s", m.ID())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *confirmClient) apply(tag uint64, multiple, ack bool, last uint64, settled map[uint64]bool) error {
	if tag == 0 || tag > last {
		return fmt.Errorf("confirm for seq %d, of which %d were given out", tag, last)
	}
	from := tag
	if multiple {
		from = c.low
	}
	if _, twice := c.outcome[tag]; twice {
		return fmt.Errorf("seq %d is confirmed twice", tag)
	}
	for seq := from; seq <= tag; seq++ {
		ok, done := settled[seq]
		if !done {
			return fmt.Errorf("ack of %d (multiple=%t) covers %d, which is open", tag, multiple, seq)
		}
		if _, known := c.outcome[seq]; known {
			continue
		}
		if ok != ack {
			return fmt.Errorf("seq %d was settled with %t and is told as %t", seq, ok, ack)
		}
		c.outcome[seq] = ack
	}
	for c.low <= last {
		if _, known := c.outcome[c.low]; !known {
			break
		}
		c.low++
	}
	return nil
}

// TestConfirmsSettleEverySeqExactlyOnce settles in random order, encodes at random moments
// and checks what a client understands against what was settled.
func TestConfirmsSettleEverySeqExactlyOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var c confirms
		var open []uint64
		settled := make(map[uint64]bool)
		client := &confirmClient{outcome: make(map[uint64]bool), low: 1}
		spread := rapid.SampledFrom([]int{1, 3, 70, 400}).Draw(rt, "spread")
		encode := func() {
			had := c.pending()
			b := c.encode(nil, 7)
			if had != (len(b) > 0) {
				rt.Fatalf("pending is %t and %d bytes came", had, len(b))
			}
			if err := client.read(b, c.last, settled); err != nil {
				rt.Fatal(err)
			}
			if len(client.outcome) != len(settled) {
				rt.Fatalf("%d settled, the client knows of %d", len(settled), len(client.outcome))
			}
		}
		for range rapid.IntRange(1, 400).Draw(rt, "steps") {
			switch op := rapid.IntRange(0, 9).Draw(rt, "op"); {
			case op < 4:
				seq := c.next()
				if seq != uint64(len(open)+len(settled)+1) {
					rt.Fatalf("seq %d after %d", seq, len(open)+len(settled))
				}
				open = append(open, seq)
			case op < 9 && len(open) > 0:
				i := rapid.IntRange(0, min(spread, len(open))-1).Draw(rt, "which")
				seq, ok := open[i], rapid.IntRange(0, 9).Draw(rt, "ok") > 0
				open = slices.Delete(open, i, i+1)
				settled[seq] = ok
				c.settle(seq, ok)
				if rapid.Bool().Draw(rt, "again") {
					c.settle(seq, !ok) // must not count
				}
			default:
				encode()
			}
		}
		for _, seq := range open {
			settled[seq] = true
			c.settle(seq, true)
		}
		encode()
		if len(c.done) > 1 || c.low != c.last+1 && c.last > 0 {
			rt.Fatalf("all %d are settled, low is %d and %d words are kept", c.last, c.low, len(c.done))
		}
	})
}

func TestConfirmsWording(t *testing.T) {
	for _, tt := range []struct {
		name   string
		given  int
		settle []int64 // negative: nack
		want   string
	}{
		{"nothing", 3, nil, ""},
		{"one is acked alone", 3, []int64{1}, "ack 1"},
		{"a run is acked at once", 5, []int64{1, 2, 3}, "ack 3+"},
		{"out of order stays single", 5, []int64{3, 2}, "ack 3, ack 2"},
		{"a gap that closes joins the run", 5, []int64{2, 1, 3}, "ack 3+"},
		{"beyond a gap stays single", 5, []int64{1, 3}, "ack 1, ack 3"},
		{"nacks come first", 5, []int64{1, -2, 3}, "nack 2, ack 3+"},
		{"an ack behind a nack that closed its gap", 5, []int64{2, -1, 3}, "nack 1, ack 3+"},
		{"unknown ones are ignored", 2, []int64{3, 9}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var c confirms
			for range tt.given {
				c.next()
			}
			for _, s := range tt.settle {
				c.settle(uint64(max(s, -s)), s > 0)
			}
			if got := describeConfirms(t, c.encode(nil, 1)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func describeConfirms(t testing.TB, b []byte) (text string) {
	t.Helper()
	for len(b) > 0 {
		f, n, err := amqp.ParseFrame(b, 4096)
		if err != nil {
			t.Fatal(err)
		}
		b = b[n:]
		if text != "" {
			text += ", "
		}
		var tag uint64
		var multiple bool
		switch m, _ := amqp.ParseMethod(f.Payload); m := m.(type) {
		case *amqp.BasicAck:
			text, tag, multiple = text+"ack", m.DeliveryTag, m.Multiple
		case *amqp.BasicNack:
			text, tag, multiple = text+"nack", m.DeliveryTag, m.Multiple
		}
		text += fmt.Sprintf(" %d", tag)
		if multiple {
			text += "+"
		}
	}
	return text
}
