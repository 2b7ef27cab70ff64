package fifo

// item is one message the machine holds, ready or outstanding: 32 bytes if the payload is a pointer. It has no more
// than four words in four fields, so that the compiler moves it in registers.
type item[P any] struct {
	payload P
	seq     uint64
	extent
	meta
}

type extent struct {
	size uint32
	slot uint32 // of the consumer that holds the message, 0 if nobody's
}

// meta is the flags below, the priority and three counts of 16 bits.
type meta uint64

const (
	flagRedelivered meta = 1 << iota // came back from the store as handed out before
	flagUnloaded                     // payload dropped, the store has it
	flagDue                          // outstanding and past its deadline
	flagHeld                         // returned, and not ready before a time
	flagLeaving                      // taken out of the queue for good, but not forgotten yet

	priorityShift = 8
	failedShift   = 16 // failed deliveries; saturates
	acquiredShift = 32 // times handed out; saturates
	groupShift    = 48 // 0 = none
)

// newMeta is the meta of a message that is ready.
func newMeta(priority uint8, failed, acquired, group uint16, redelivered bool) meta {
	x := meta(priority)<<priorityShift | meta(failed)<<failedShift | meta(acquired)<<acquiredShift | meta(group)<<groupShift
	if redelivered {
		x |= flagRedelivered
	}
	return x
}

func (x meta) is(flag meta) bool { return x&flag != 0 }
func (x meta) loaded() bool      { return x&flagUnloaded == 0 }
func (x meta) priority() uint8   { return uint8(x >> priorityShift) }
func (x meta) failed() uint16    { return uint16(x >> failedShift) }
func (x meta) acquired() uint16  { return uint16(x >> acquiredShift) }
func (x meta) group() uint16     { return uint16(x >> groupShift) }
func (x meta) redelivered() bool { return x.acquired() > 0 || x.is(flagRedelivered) }
func (x *meta) raise(shift uint8) {
	if uint16(*x>>shift) < ^uint16(0) {
		*x += 1 << shift
	}
}

// settle clears what only counts while a message is not ready.
func (x *meta) settle() { *x &^= flagDue | flagHeld | flagLeaving }

func (it *item[P]) describe() Gone[P] { return Gone[P]{Payload: it.payload, Size: it.size} }

// unload drops the payload.
func (it *item[P]) unload() {
	var none P
	it.payload = none
	it.meta |= flagUnloaded
}
