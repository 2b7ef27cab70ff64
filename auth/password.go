package auth

import (
	"crypto/md5" //nolint:gosec // verified for users imported from old brokers, never produced
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"

	"golang.org/x/crypto/bcrypt"
)

// Names of hash algorithms, as they stand in definitions files and user records.
const (
	SHA256 = "rabbit_password_hashing_sha256"
	SHA512 = "rabbit_password_hashing_sha512"
	MD5    = "rabbit_password_hashing_md5" // legacy: accepted, never produced
	Bcrypt = "lavinmq_bcrypt"              // accepted from LavinMQ's exports, never produced
)

const (
	saltSize = 4
	// maxBcryptCost bounds what one login attempt may cost us: cost 12 is about a quarter of a second.
	maxBcryptCost = 12
)

var (
	// ErrEmptyPassword is returned when an empty password is to be hashed: an empty password never logs in.
	ErrEmptyPassword = errors.New("auth: empty password")
	// ErrUnknownAlgorithm is returned for a password hash whose algorithm we cannot verify.
	ErrUnknownAlgorithm = errors.New("auth: unknown password hash algorithm")
	// ErrBadHash is returned for a password hash that does not have the form its algorithm asks for.
	ErrBadHash = errors.New("auth: malformed password hash")
)

// HashPassword salts and hashes a password for User.PasswordHash with algorithm SHA256.
// The result is 36 bytes: a random salt of 4, then SHA-256(salt ‖ password). It returns
// ErrEmptyPassword for "".
func HashPassword(password string) ([]byte, error) {
	if password == "" {
		return nil, ErrEmptyPassword
	}
	var salt [saltSize]byte
	// crypto/rand never returns an error: it ends the process when the system has no randomness.
	_, _ = rand.Read(salt[:])
	return append(salt[:], digest(SHA256, salt[:], password)...), nil
}

// DecodeHash reads a password hash as a definitions file spells it (base64 of salt and digest, or
// bcrypt's own text) and checks its form. An empty text gives nil: a user without a password, who can
// log in by certificate only. An empty algorithm means SHA256.
func DecodeHash(algorithm, text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	if algorithm == Bcrypt {
		hash := []byte(text)
		return hash, CheckHash(algorithm, hash)
	}
	hash, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadHash, err)
	}
	if err := CheckHash(algorithm, hash); err != nil {
		return nil, err
	}
	return hash, nil
}

// EncodeHash is the inverse of DecodeHash.
func EncodeHash(algorithm string, hash []byte) string {
	if algorithm == Bcrypt {
		return string(hash)
	}
	return base64.StdEncoding.EncodeToString(hash)
}

// CheckHash reports whether a raw hash has the form that Verify needs. Nil and empty hashes are
// well formed and match no password. An empty algorithm means SHA256.
func CheckHash(algorithm string, hash []byte) error {
	if len(hash) == 0 {
		return nil
	}
	if algorithm == Bcrypt {
		cost, err := bcrypt.Cost(hash)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrBadHash, err)
		}
		if cost > maxBcryptCost {
			return fmt.Errorf("%w: bcrypt cost %d is above %d", ErrBadHash, cost, maxBcryptCost)
		}
		return nil
	}
	size := digestSize(algorithm)
	if size == 0 {
		return fmt.Errorf("%w %q", ErrUnknownAlgorithm, algorithm)
	}
	if len(hash) != saltSize+size {
		return fmt.Errorf("%w: %d bytes, want %d", ErrBadHash, len(hash), saltSize+size)
	}
	return nil
}

// Verify reports whether password is the user's. It compares in constant time, refuses the empty
// password, and is false for a user without a password. Whatever the reason of a refusal, a digest
// is computed; a nil user costs what VerifyNone costs.
func (u *User) Verify(password string) bool {
	if u == nil || password == "" || len(u.PasswordHash) == 0 || CheckHash(u.Algorithm, u.PasswordHash) != nil {
		return VerifyNone(password)
	}
	if u.Algorithm == Bcrypt {
		return bcrypt.CompareHashAndPassword(u.PasswordHash, []byte(password)) == nil
	}
	want := u.PasswordHash[saltSize:]
	got := digest(u.Algorithm, u.PasswordHash[:saltSize], password)
	return subtle.ConstantTimeCompare(got, want) == 1
}

// VerifyNone is Verify for a user that does not exist: it costs one digest and is always false.
func VerifyNone(password string) bool {
	var want [sha256.Size]byte
	got := digest(SHA256, make([]byte, saltSize), password)
	return subtle.ConstantTimeCompare(got, want[:]) == 2 // never: the result is 0 or 1
}

// digestSize is the length of the digest of a salted algorithm, 0 for an unknown one.
func digestSize(algorithm string) int {
	switch algorithm {
	case SHA256, "":
		return sha256.Size
	case SHA512:
		return sha512.Size
	case MD5:
		return md5.Size
	}
	return 0
}

// digest hashes salt and password with one of the algorithms that digestSize knows.
func digest(algorithm string, salt []byte, password string) []byte {
	b := make([]byte, 0, len(salt)+len(password))
	b = append(append(b, salt...), password...)
	switch algorithm {
	case SHA512:
		sum := sha512.Sum512(b)
		return sum[:]
	case MD5:
		sum := md5.Sum(b) //nolint:gosec // see the import
		return sum[:]
	default:
		sum := sha256.Sum256(b)
		return sum[:]
	}
}
