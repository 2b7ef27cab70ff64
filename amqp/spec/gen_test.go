package main

import (
	"strings"
	"testing"
)

func TestGeneratedFilesAreFresh(t *testing.T) {
	files, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	if err := compare("..", files); err != nil {
		t.Fatal(err)
	}
	if err := compare(t.TempDir(), files); err == nil || !strings.Contains(err.Error(), "basic_gen.go") {
		t.Fatalf("missing files pass as fresh: %v", err)
	}
}

func TestGoNameFollowsTheSpecification(t *testing.T) {
	for name, want := range map[string]string{
		"start-ok": "StartOk", "class-id": "ClassID", "nowait": "NoWait", "no-wait": "NoWait", "recover-async": "RecoverAsync",
	} {
		if have := goName(name); have != want {
			t.Errorf("goName(%q) = %q, want %q", name, have, want)
		}
	}
}
