package auth

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Layout of the records: one version byte, then strings, each an unsigned varint length and its bytes;
// a list is a varint count and its strings. A record is read to its last byte or refused.

const (
	recordVersion = 1
	maxTags       = 1024 // more than any user has; keeps a damaged count from reserving memory
)

// ErrBadRecord is wrapped by the errors of the Unmarshal functions: the bytes are damaged, or were
// written by a newer version.
var ErrBadRecord = errors.New("auth: bad record")

// Marshal encodes the user for the metadata store.
func (u *User) Marshal() []byte {
	b := []byte{recordVersion}
	b = appendString(b, u.Name)
	b = appendString(b, string(u.PasswordHash))
	b = appendString(b, u.Algorithm)
	b = binary.AppendUvarint(b, uint64(len(u.Tags)))
	for _, tag := range u.Tags {
		b = appendString(b, tag)
	}
	return b
}

// UnmarshalUser decodes what User.Marshal wrote. The result does not alias b.
func UnmarshalUser(b []byte) (*User, error) {
	r := newRecord(b)
	u := &User{Name: r.string(), PasswordHash: []byte(r.string()), Algorithm: r.string()}
	if len(u.PasswordHash) == 0 {
		u.PasswordHash = nil
	}
	n := r.count(maxTags)
	for range n {
		u.Tags = append(u.Tags, r.string())
	}
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("user: %w", err)
	}
	return u, nil
}

// Marshal encodes the three pattern texts for the metadata store.
func (p Permissions) Marshal() []byte {
	b := []byte{recordVersion}
	b = appendString(b, p.Configure.String())
	b = appendString(b, p.Write.String())
	return appendString(b, p.Read.String())
}

// UnmarshalPermissions decodes what Permissions.Marshal wrote and compiles the patterns.
func UnmarshalPermissions(b []byte) (Permissions, error) {
	r := newRecord(b)
	configure, write, read := r.string(), r.string(), r.string()
	if err := r.end(); err != nil {
		return Permissions{}, fmt.Errorf("permissions: %w", err)
	}
	return CompilePermissions(configure, write, read)
}

// Marshal encodes the topic permission for the metadata store.
func (t TopicPermission) Marshal() []byte {
	b := []byte{recordVersion}
	b = appendString(b, t.Exchange)
	b = appendString(b, t.Write)
	return appendString(b, t.Read)
}

// UnmarshalTopicPermission decodes what TopicPermission.Marshal wrote. The patterns are compiled later,
// when their variables are known.
func UnmarshalTopicPermission(b []byte) (TopicPermission, error) {
	r := newRecord(b)
	t := TopicPermission{Exchange: r.string(), Write: r.string(), Read: r.string()}
	if err := r.end(); err != nil {
		return TopicPermission{}, fmt.Errorf("topic permission: %w", err)
	}
	return t, nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// record is a cursor with a sticky error: callers check once, at the end.
type record struct {
	b   []byte
	err error
}

func newRecord(b []byte) *record {
	if len(b) == 0 {
		return &record{err: fmt.Errorf("%w: empty", ErrBadRecord)}
	}
	if b[0] != recordVersion {
		return &record{err: fmt.Errorf("%w: version %d, this program knows %d", ErrBadRecord, b[0], recordVersion)}
	}
	return &record{b: b[1:]}
}

func (r *record) fail() {
	if r.err == nil {
		r.err = fmt.Errorf("%w: cut short", ErrBadRecord)
	}
	r.b = nil
}

func (r *record) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *record) string() string {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail()
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *record) count(limit uint64) int {
	n := r.uvarint()
	if n > limit {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *record) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.err = fmt.Errorf("%w: %d bytes too many", ErrBadRecord, len(r.b))
	}
	return r.err
}
