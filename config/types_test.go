package config

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]Size{
		"0":                    0,
		"1":                    1,
		"131072":               128 * KiB,
		"64MiB":                64 * MiB,
		"64 MiB":               64 * MiB,
		"64mib":                64 * MiB,
		"50MB":                 50_000_000,
		"2kB":                  2000,
		"2KiB":                 2048,
		"7B":                   7,
		"3TiB":                 3 << 40,
		"8191PiB":              -1,
		"9999999TB":            -1,
		"":                     -1,
		"MiB":                  -1,
		"-1":                   -1,
		"+1":                   -1,
		"1.5GiB":               -1,
		"0x10":                 -1,
		"1_000":                -1,
		"1 Mi B":               -1,
		"1M":                   -1, // 10^6 or 2^20? RabbitMQ changed its mind once
		"99999999999999999999": -1,
	} {
		got, err := ParseSize(text)
		if want < 0 {
			if err == nil {
				t.Errorf("%q: %d", text, got)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"64MiB", "50MB", "0", "-1", "9223372036854775807"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		size, err := ParseSize(s)
		if err != nil {
			return
		}
		again, err := ParseSize(size.String())
		if size < 0 || err != nil || again != size {
			t.Fatalf("%q: %d, printed as %q, read as %d, %v", s, size, size, again, err)
		}
	})
}

func TestSizeStringKeepsTheValue(t *testing.T) {
	for size, want := range map[Size]string{0: "0", 1: "1", 1000: "1000", KiB: "1KiB", 1536: "1536", 64 * MiB: "64MiB", 3 << 40: "3TiB"} {
		if got := size.String(); got != want {
			t.Errorf("%d: %q, want %q", int64(size), got, want)
		}
	}
}

func TestWatermarkIsAShareOrASize(t *testing.T) {
	if got := (Watermark{Share: 0.5}).Of(1000); got != 500 {
		t.Errorf("share: %d", got)
	}
	if got := (Watermark{Size: 7}).Of(1000); got != 7 {
		t.Errorf("size: %d", got)
	}
	for text, want := range map[string]Watermark{"0.4": {Share: 0.4}, "1": {Share: 1}, "1.0": {Share: 1}, "2": {Size: 2}, "1GiB": {Size: GiB}, "0": {}} {
		c, err := Parse([]byte("vm_memory_high_watermark: " + text + "\n"))
		if err != nil || c.VMMemoryHighWatermark != want {
			t.Errorf("%s: %+v, %v", text, c, err)
		}
	}
	for _, text := range []string{"NaN", "-0.5", "1.5", "60%"} {
		if _, err := Parse([]byte("vm_memory_high_watermark: " + text + "\n")); err == nil {
			t.Errorf("%s accepted", text)
		}
	}
}

func TestAutoSize(t *testing.T) {
	if _, fixed := Auto.Fixed(); fixed || Auto.String() != "auto" {
		t.Error("auto is fixed")
	}
	if size, fixed := AutoSize(0).Fixed(); !fixed || size != 0 {
		t.Error("0 is not a size")
	}
}

func TestSecretDoesNotShowItself(t *testing.T) {
	b, err := json.Marshal(Auth{DefaultPass: "s3cret"})
	if err != nil || strings.Contains(string(b), "s3cret") {
		t.Errorf("%s, %v", b, err)
	}
}
