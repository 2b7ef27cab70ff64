package auth

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// Computed by RabbitMQ: salt 908DC60A, password "test12".
const vectorSHA256 = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"

func TestSHA256HashIsRabbitMQs(t *testing.T) {
	salt, _ := hex.DecodeString("908DC60A")
	got := EncodeHash(SHA256, append(salt, digest(SHA256, salt, "test12")...))
	if got != vectorSHA256 {
		t.Fatalf("hash = %s, want %s", got, vectorSHA256)
	}
	hash, err := DecodeHash(SHA256, vectorSHA256)
	if err != nil {
		t.Fatal(err)
	}
	for _, algorithm := range []string{SHA256, ""} {
		u := &User{Name: "u", PasswordHash: hash, Algorithm: algorithm}
		if !u.Verify("test12") {
			t.Errorf("algorithm %q: right password refused", algorithm)
		}
		for _, wrong := range []string{"", "test1", "test123", "Test12", "test12\x00"} {
			if u.Verify(wrong) {
				t.Errorf("algorithm %q: password %q accepted", algorithm, wrong)
			}
		}
	}
}

func TestImportedAlgorithmsVerify(t *testing.T) {
	salt := []byte{1, 2, 3, 4}
	for _, algorithm := range []string{SHA512, MD5} {
		text := EncodeHash(algorithm, append(salt[:4:4], digest(algorithm, salt, "pä ss")...))
		hash, err := DecodeHash(algorithm, text)
		if err != nil {
			t.Fatalf("%s: %v", algorithm, err)
		}
		u := &User{PasswordHash: hash, Algorithm: algorithm}
		if !u.Verify("pä ss") || u.Verify("pä  ss") {
			t.Errorf("%s: verification is wrong", algorithm)
		}
		if EncodeHash(algorithm, hash) != text {
			t.Errorf("%s: text changed on the way", algorithm)
		}
	}
	text, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	hash, err := DecodeHash(Bcrypt, string(text))
	if err != nil {
		t.Fatal(err)
	}
	u := &User{PasswordHash: hash, Algorithm: Bcrypt}
	if !u.Verify("secret") || u.Verify("Secret") || u.Verify("") {
		t.Error("bcrypt: verification is wrong")
	}
}

func TestHashPasswordSaltsAndRefusesEmpty(t *testing.T) {
	if _, err := HashPassword(""); !errors.Is(err, ErrEmptyPassword) {
		t.Fatalf("empty password: %v", err)
	}
	a, err := HashPassword("x")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := HashPassword("x")
	if string(a) == string(b) {
		t.Error("two hashes of one password are equal")
	}
	if u := (&User{PasswordHash: a, Algorithm: SHA256}); !u.Verify("x") || u.Verify("y") {
		t.Error("hash does not verify")
	}
}

// A digest of the empty password is a valid hash, and must still not let anybody in.
func TestEmptyPasswordNeverLogsIn(t *testing.T) {
	salt := []byte{9, 9, 9, 9}
	u := &User{PasswordHash: append(salt[:4:4], digest(SHA256, salt, "")...), Algorithm: SHA256}
	if u.Verify("") {
		t.Error("empty password accepted")
	}
}

func TestUsersWithoutUsableHashNeverLogIn(t *testing.T) {
	good, _ := DecodeHash(SHA256, vectorSHA256)
	for name, u := range map[string]*User{
		"nil user":          nil,
		"no password":       {},
		"empty hash":        {PasswordHash: []byte{}, Algorithm: SHA256},
		"unknown algorithm": {PasswordHash: good, Algorithm: "rot13"},
		"other algorithm":   {PasswordHash: good, Algorithm: SHA512},
		"salt only":         {PasswordHash: good[:4], Algorithm: SHA256},
		"short salt":        {PasswordHash: good[:2], Algorithm: SHA256},
		"digest cut":        {PasswordHash: good[:20], Algorithm: SHA256},
		"bad bcrypt":        {PasswordHash: []byte("$2a$"), Algorithm: Bcrypt},
	} {
		for _, password := range []string{"", "test12", "x"} {
			if u.Verify(password) {
				t.Errorf("%s: password %q accepted", name, password)
			}
		}
	}
	if VerifyNone("") || VerifyNone("x") {
		t.Error("VerifyNone let somebody in")
	}
}

func TestDecodeHashRefusesMalformedText(t *testing.T) {
	if hash, err := DecodeHash("", ""); err != nil || hash != nil {
		t.Errorf("empty text: %v, %v", hash, err)
	}
	for _, tc := range []struct {
		algorithm, text string
		want            error
	}{
		{SHA256, "not base64!", ErrBadHash},
		{SHA256, "AAAA", ErrBadHash},
		{SHA512, vectorSHA256, ErrBadHash},
		{MD5, vectorSHA256, ErrBadHash},
		{"rot13", vectorSHA256, ErrUnknownAlgorithm},
		{Bcrypt, "hello", ErrBadHash},
		// A login attempt against this one would keep a core busy for hours.
		{Bcrypt, "$2a$31$" + strings.Repeat("a", 53), ErrBadHash},
	} {
		if _, err := DecodeHash(tc.algorithm, tc.text); !errors.Is(err, tc.want) {
			t.Errorf("%s %q: error %v, want %v", tc.algorithm, tc.text, err, tc.want)
		}
	}
}
