package settmq

import (
	"bytes"
	"testing"
)

func TestExampleConfigIsEmbedded(t *testing.T) {
	if !bytes.Contains(ExampleConfig, []byte("\nlisteners:\n")) {
		t.Error("config.example.yaml is not embedded")
	}
}
