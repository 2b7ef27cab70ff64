package server

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/settmq/settmq/amqp"
)

// largeBody is n bytes that tell where they belong.
func largeBody(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}

// TestLargeBodiesArriveInAnyPieces: a body is the same however it was cut into frames and the
// frames into reads, also with frames of another channel between its own.
func TestLargeBodiesArriveInAnyPieces(t *testing.T) {
	body := largeBody(700<<10 + 3)
	for _, frame := range []int{131064, 100_000, 4088} {
		for _, piece := range []int{997, 4096, 65_537, 131_072, 1 << 30} {
			t.Run(fmt.Sprintf("frames of %d in pieces of %d", frame, piece), func(t *testing.T) {
				inBubble(t, func(_ *testing.T, r *rig) {
					p := r.open()
					p.channel(2)
					p.declare("q")
					var b []byte
					for range 2 {
						b = amqp.AppendPublish(b, 1, "", "q", false)
						b = amqp.AppendContentHeader(b, 1, uint64(len(body)), nil)
						for left := body; len(left) > 0; left = left[min(frame, len(left)):] {
							b = amqp.AppendBodyFrame(b, 1, left[:min(frame, len(left))])
							if len(left) == len(body) {
								b = append(b, publishFrames(2, "", "q", false, []byte("between"))...)
							}
						}
					}
					for len(b) > 0 {
						n := min(piece, len(b))
						p.write(b[:n])
						b = b[n:]
					}
					for i := range 4 {
						p.send(1, &amqp.BasicGet{Queue: "q", NoAck: true})
						want := []byte("between")
						if i%2 == 1 {
							want = body
						}
						if _, got := expectContent[*amqp.BasicGetOk](p, 1); !bytes.Equal(got, want) {
							t.Errorf("message %d: %d bytes came back, want %d, or they differ", i, len(got), len(want))
						}
					}
				})
			})
		}
	}
}

// TestLargeBodyWithoutFrameEnd: the end of a frame is looked at also when its body did not go
// through the buffer.
func TestLargeBodyWithoutFrameEnd(t *testing.T) {
	inBubble(t, func(_ *testing.T, r *rig) {
		p := r.open()
		body := bytes.Repeat([]byte("A"), 131064)
		b := amqp.AppendPublish(nil, 1, "", "q", false)
		b = amqp.AppendContentHeader(b, 1, 300_000, nil)
		b = amqp.AppendBodyFrame(b, 1, body)
		b[len(b)-1] = 'x'
		p.write(b[:len(b)-1000])
		p.write(b[len(b)-1000:])
		p.closeExpected(501, "FRAME_ERROR - type 3, first 16 octets = <<\"AAAAAAAAAAAAAAAA\">>: {invalid_frame_end_marker,120}")
	})
}

// TestCloseWithinALargeBody: a connection that is closed while a frame comes in finds the
// frames behind it.
func TestCloseWithinALargeBody(t *testing.T) {
	inBubble(t, func(_ *testing.T, r *rig) {
		p := r.open()
		b := amqp.AppendPublish(nil, 1, "", "q", false)
		b = amqp.AppendContentHeader(b, 1, 300_000, nil)
		b = amqp.AppendBodyFrame(b, 1, largeBody(131064))
		p.write(b[:len(b)-1000])
		done := make(chan struct{})
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			r.s.Shutdown(ctx)
			close(done)
		}()
		if m := expect[*amqp.ConnectionClose](p, 0); m.ReplyCode != 320 {
			t.Errorf("code %d", m.ReplyCode)
		}
		start := time.Now()
		p.write(b[len(b)-1000:])
		p.send(0, &amqp.ConnectionCloseOk{})
		p.ended()
		<-done
		if d := time.Since(start); d > 0 {
			t.Errorf("close-ok was heard after %v", d)
		}
	})
}
