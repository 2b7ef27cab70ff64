package storage

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

var (
	errShort    = errors.New("ends too early")
	errVersion  = errors.New("unknown version")
	errLayout   = errors.New("impossible lengths")
	errUnknown  = errors.New("unknown operation")
	errChecksum = errors.New("checksum does not match")
	errRange    = errors.New("number out of range")
)

// cursor decodes from a slice. Its error is sticky: callers check once, at the end.
type cursor struct {
	b   []byte
	err error
}

func (c *cursor) fail(err error) {
	if c.err == nil {
		c.err = err
	}
	c.b = nil
}

func (c *cursor) byte() byte {
	if len(c.b) == 0 {
		c.fail(errShort)
		return 0
	}
	v := c.b[0]
	c.b = c.b[1:]
	return v
}

func (c *cursor) uint64() uint64 {
	if len(c.b) < 8 {
		c.fail(errShort)
		return 0
	}
	v := binary.LittleEndian.Uint64(c.b)
	c.b = c.b[8:]
	return v
}

func (c *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.fail(errShort)
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *cursor) varint() int64 {
	v, n := binary.Varint(c.b)
	if n <= 0 {
		c.fail(errShort)
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *cursor) uint16() uint16 {
	if len(c.b) < 2 {
		c.fail(errShort)
		return 0
	}
	v := binary.LittleEndian.Uint16(c.b)
	c.b = c.b[2:]
	return v
}

// take returns the next n bytes, aliasing the input.
func (c *cursor) take(n uint64) []byte {
	if n > uint64(len(c.b)) {
		c.fail(errShort)
		return nil
	}
	v := c.b[:n:n]
	c.b = c.b[n:]
	return v
}

func (c *cursor) bytes() []byte { return c.take(c.uvarint()) }

// batchHeader is the decoded head of a batch.
type batchHeader struct {
	flags                   byte
	total, msgEnd, stateEnd uint64
}

func parseBatchHeader(b []byte) (h batchHeader, err error) {
	c := cursor{b: b}
	version := c.byte()
	h.flags = c.byte()
	c.take(6)
	h.total, h.msgEnd, h.stateEnd = c.uint64(), c.uint64(), c.uint64()
	switch {
	case c.err != nil:
		return h, c.err
	case version != batchVersion:
		return h, errVersion
	case h.msgEnd < batchHeaderSize || h.stateEnd < h.msgEnd || h.total < h.stateEnd:
		return h, errLayout
	}
	return h, nil
}

// messageOp is a decoded message operation. Slices alias the input.
type messageOp struct {
	qid, seq   uint64
	transient  bool
	shared     bool // other queues refer to it
	exchange   []byte
	routingKey []byte
	properties []byte
	bodySize   uint64
	body       []byte // nil if only the head was parsed
	size       uint64 // whole operation
	bodyAt     uint64 // offset of the body in the operation
	sum        uint32
}

// parseMessageSize returns the size of the message operation at the head of b, which holds at
// least messageHeaderSize bytes.
func parseMessageSize(b []byte) (uint64, error) {
	if len(b) < messageHeaderSize {
		return 0, errShort
	}
	if b[0] != opMessage {
		return 0, errUnknown
	}
	return messageHeaderSize + uint64(binary.LittleEndian.Uint32(b[6:])), nil
}

// parseMessage decodes the message operation at the head of b. With check it also compares the
// checksum. b may end inside the body if !check: the body is then nil.
func parseMessage(b []byte, op *messageOp, check bool) error {
	size, err := parseMessageSize(b)
	if err != nil {
		return err
	}
	op.size = size
	op.sum = binary.LittleEndian.Uint32(b[1:])
	op.transient = b[5]&messageTransient != 0
	op.shared = b[5]&messageShared != 0
	whole := uint64(len(b)) >= size
	if whole {
		b = b[:size]
	} else if check {
		return errShort
	}
	c := cursor{b: b[messageHeaderSize:]}
	op.qid, op.seq = c.uvarint(), c.uvarint()
	op.exchange, op.routingKey, op.properties = c.bytes(), c.bytes(), c.bytes()
	op.bodySize = c.uvarint()
	if c.err != nil {
		return c.err
	}
	op.bodyAt = uint64(len(b) - len(c.b))
	if op.bodySize > maxBody || op.bodyAt+op.bodySize != size {
		return errLayout
	}
	op.body = nil
	if whole {
		op.body = c.b
	}
	if check && crc32.Checksum(b[5:], castagnoli) != op.sum {
		return errChecksum
	}
	return nil
}

// replayer receives the operations of a batch in replay order.
type replayer interface {
	// replayMessage gives one target of the message operation at offset at; shared says that there
	// are more.
	replayMessage(at uint32, qid, seq, bodySize uint64, transient, shared bool) error
	replaySettle(qid, lo, hi uint64) error
	replayLimit(qid, upTo uint64, exact bool) error
	replayNote(qid, seq uint64, n *Note) error
	replayPut(k, v []byte) error
	replayDelete(k []byte) error
	replayCreate(qid, limit uint64) error
	replayDrop(qid uint64) error
	replayIDs(upTo uint64) error
}

// replayBatch decodes a whole batch. The journal has verified its bytes; every bound is checked
// all the same.
func replayBatch(record []byte, r replayer) (h batchHeader, err error) {
	h, err = parseBatchHeader(record)
	if err != nil {
		return h, err
	}
	if h.total != uint64(len(record)) {
		return h, errLayout
	}
	if err := replayMeta(record[h.stateEnd:], r); err != nil {
		return h, err
	}
	if err := replayMessages(record[:h.msgEnd], r); err != nil {
		return h, err
	}
	return h, replayStates(record[h.msgEnd:h.stateEnd], r)
}

func replayMessages(b []byte, r replayer) error {
	var op messageOp
	for at := uint64(batchHeaderSize); at < uint64(len(b)); {
		if at > maxOpOffset {
			return errRange
		}
		if b[at] == opMessage {
			if err := parseMessage(b[at:], &op, false); err != nil {
				return err
			}
			if op.body == nil && op.bodySize > 0 {
				return errShort
			}
			if err := r.replayMessage(uint32(at), op.qid, op.seq, op.bodySize, op.transient, op.shared); err != nil {
				return err
			}
			at += op.size
			continue
		}
		if b[at] != opRef {
			return errUnknown
		}
		c := cursor{b: b[at+1:]}
		target, qid, seq, size, flags := c.uvarint(), c.uvarint(), c.uvarint(), c.uvarint(), c.byte()
		if c.err != nil {
			return c.err
		}
		if target < batchHeaderSize || target >= at || size > maxBody {
			return errRange
		}
		if err := r.replayMessage(uint32(target), qid, seq, size, flags&messageTransient != 0, true); err != nil {
			return err
		}
		at = uint64(len(b) - len(c.b))
	}
	return nil
}

func replayStates(b []byte, r replayer) error {
	c := cursor{b: b}
	for len(c.b) > 0 {
		kind := c.byte()
		qid := c.uvarint()
		switch kind {
		case opSettle:
			last := uint64(0)
			for n := c.uvarint(); n > 0 && c.err == nil; n-- {
				lo := last + c.uvarint()
				hi := lo + c.uvarint()
				if hi < lo {
					return errRange
				}
				if c.err == nil {
					if err := r.replaySettle(qid, lo, hi); err != nil {
						return err
					}
				}
				last = hi
			}
		case opLimit, opExact:
			upTo := c.uvarint()
			if c.err == nil {
				if err := r.replayLimit(qid, upTo, kind == opExact); err != nil {
					return err
				}
			}
		case opNotes:
			seq := uint64(0)
			for n := c.uvarint(); n > 0 && c.err == nil; n-- {
				seq += c.uvarint()
				note := c.note()
				if c.err == nil {
					if err := r.replayNote(qid, seq, &note); err != nil {
						return err
					}
				}
			}
		default:
			return errUnknown
		}
	}
	return c.err
}

func replayMeta(b []byte, r replayer) error {
	c := cursor{b: b}
	for len(c.b) > 0 {
		var err error
		switch kind := c.byte(); kind {
		case opPut:
			if k, v := c.bytes(), c.bytes(); c.err == nil {
				err = r.replayPut(k, v)
			}
		case opDelete:
			if k := c.bytes(); c.err == nil {
				err = r.replayDelete(k)
			}
		case opCreate:
			if qid, limit := c.uvarint(), c.uvarint(); c.err == nil {
				err = r.replayCreate(qid, limit)
			}
		case opDrop:
			if qid := c.uvarint(); c.err == nil {
				err = r.replayDrop(qid)
			}
		case opIDs:
			if upTo := c.uvarint(); c.err == nil {
				err = r.replayIDs(upTo)
			}
		default:
			err = errUnknown
		}
		if err != nil {
			return err
		}
	}
	return c.err
}
