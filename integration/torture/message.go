package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strconv"
	"strings"
)

// A body is the id, a CRC of everything else, and filling. Bodies that are too small for
// it carry the id in the message-id property alone, which all messages have; so do the size
// and the CRC of the body, in the type property.
const (
	bodyHead = 12
	maxBody  = 200 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// filling is what bodies are cut from.
var filling = func() []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 2*maxBody)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}()

// bodySize picks a size: mostly small, some empty, a few large.
func bodySize(rng *rand.Rand) int {
	switch n := rng.IntN(1000); {
	case n < 20:
		return 0
	case n < 40:
		return 1 + rng.IntN(bodyHead)
	case n < 930:
		return bodyHead + rng.IntN(1000)
	case n < 992:
		return 1000 + rng.IntN(15000)
	default:
		return rng.IntN(maxBody + 1)
	}
}

// appendBody appends a body of the given size.
func appendBody(b []byte, id MessageID, size, offset int) []byte {
	b = append(b, filling[offset:offset+size]...)
	if size >= bodyHead {
		binary.BigEndian.PutUint32(b, id.Channel)
		binary.BigEndian.PutUint32(b[4:], id.Seq)
		binary.BigEndian.PutUint32(b[8:], bodySum(b))
	}
	return b
}

func bodySum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:8], castagnoli), castagnoli, b[bodyHead:])
}

// seal is the text of the type property.
func seal(body []byte) string {
	return strconv.Itoa(len(body)) + "." + strconv.FormatUint(uint64(crc32.Checksum(body, castagnoli)), 16)
}

// open checks a delivered message and returns its id.
func open(messageID, typ string, body []byte) (MessageID, error) {
	channel, seq, ok := strings.Cut(messageID, ".")
	ch, err1 := strconv.ParseUint(channel, 10, 32)
	n, err2 := strconv.ParseUint(seq, 10, 32)
	id := MessageID{uint32(ch), uint32(n)}
	if !ok || err1 != nil || err2 != nil {
		return id, fmt.Errorf("message-id %q", messageID)
	}
	if typ != seal(body) {
		return id, fmt.Errorf("size and checksum of the body are %s, published %q", seal(body), typ)
	}
	if len(body) < bodyHead {
		return id, nil
	}
	if in := (MessageID{binary.BigEndian.Uint32(body), binary.BigEndian.Uint32(body[4:])}); in != id {
		return id, fmt.Errorf("the body is of %v", in)
	}
	if binary.BigEndian.Uint32(body[8:]) != bodySum(body) {
		return id, errors.New("the body's checksum is wrong")
	}
	return id, nil
}
