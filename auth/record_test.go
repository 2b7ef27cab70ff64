package auth

import (
	"errors"
	"reflect"
	"testing"
)

func TestRecordsComeBackEqual(t *testing.T) {
	hash, _ := HashPassword("x")
	for _, u := range []*User{
		{},
		{Name: "guest", PasswordHash: hash, Algorithm: SHA256, Tags: []string{"administrator", "", "a,b"}},
		{Name: "ü\n\x00", PasswordHash: []byte{0, 0xff}, Algorithm: "?"},
	} {
		got, err := UnmarshalUser(u.Marshal())
		if err != nil || !reflect.DeepEqual(got, u) {
			t.Errorf("user %+v came back as %+v, %v", u, got, err)
		}
	}
	p, err := CompilePermissions("^(?!amq\\.)", "", ".*")
	if err != nil {
		t.Fatal(err)
	}
	got, err := UnmarshalPermissions(p.Marshal())
	if err != nil || got.Configure.String() != p.Configure.String() || got.Write.String() != "" || got.Read.String() != ".*" {
		t.Errorf("permissions came back as %+v, %v", got, err)
	}
	if got.Allows(Configure, "amq.x") || !got.Allows(Configure, "x") {
		t.Error("permissions came back not compiled")
	}
	tp := TopicPermission{Exchange: "e", Write: "(not compiled here", Read: "{username}"}
	if got, err := UnmarshalTopicPermission(tp.Marshal()); err != nil || got != tp {
		t.Errorf("topic permission came back as %+v, %v", got, err)
	}
}

// The bytes of version 1 must be readable for ever.
func TestUserRecordVersion1IsUnchanged(t *testing.T) {
	const golden = "\x01\x03bob\x02\x01\x02\x01a\x01\x05admin"
	u := &User{Name: "bob", PasswordHash: []byte{1, 2}, Algorithm: "a", Tags: []string{"admin"}}
	if got := string(u.Marshal()); got != golden {
		t.Errorf("record is %q, want %q", got, golden)
	}
}

func TestDamagedRecordsAreErrors(t *testing.T) {
	p, _ := CompilePermissions("a", "b", "c")
	read := map[string]func([]byte) error{
		string((&User{Name: "bob", PasswordHash: []byte{1}, Tags: []string{"x", "y"}}).Marshal()): func(b []byte) error {
			_, err := UnmarshalUser(b)
			return err
		},
		string(p.Marshal()): func(b []byte) error { _, err := UnmarshalPermissions(b); return err },
		string(TopicPermission{"e", "w", "r"}.Marshal()): func(b []byte) error {
			_, err := UnmarshalTopicPermission(b)
			return err
		},
	}
	for whole, fn := range read {
		for n := range len(whole) {
			if err := fn([]byte(whole[:n])); !errors.Is(err, ErrBadRecord) {
				t.Errorf("%q cut to %d bytes: %v", whole, n, err)
			}
		}
		if err := fn([]byte(whole + "x")); !errors.Is(err, ErrBadRecord) {
			t.Errorf("%q and a byte: %v", whole, err)
		}
		if err := fn([]byte("\x02" + whole[1:])); !errors.Is(err, ErrBadRecord) {
			t.Errorf("%q with another version: %v", whole, err)
		}
	}
}

func FuzzUnmarshalUser(f *testing.F) {
	f.Add((&User{Name: "bob", PasswordHash: []byte{1}, Algorithm: SHA256, Tags: []string{"x", "y"}}).Marshal())
	f.Add([]byte{1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := UnmarshalUser(b)
		if err != nil {
			return
		}
		again, err := UnmarshalUser(u.Marshal())
		if err != nil || !reflect.DeepEqual(u, again) {
			t.Fatalf("%+v came back as %+v, %v", u, again, err)
		}
	})
}
