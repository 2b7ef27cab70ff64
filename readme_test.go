package settmq

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/settmq/settmq/internal/testbroker"
)

func TestMain(m *testing.M) { testbroker.Main(m) }

// codeBlock returns the first fenced block of the readme in that language.
func codeBlock(t *testing.T, language string) string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "\n```"+language+"\n")
	code, _, end := strings.Cut(rest, "\n```\n")
	if !ok || !end {
		t.Fatalf("README.md has no block of %s", language)
	}
	return code + "\n"
}

func TestGoProgramOfTheReadmeRuns(t *testing.T) {
	const address = "amqp://guest:guest@localhost:5672/"
	code := codeBlock(t, "go")
	if strings.Count(code, address) != 1 {
		t.Fatalf("the program does not dial %s", address)
	}
	url, external := testbroker.External()
	if !external {
		url = testbroker.Start(t, testbroker.Options{}).URL()
	}
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte(strings.Replace(code, address, url, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "go", "run", file).CombinedOutput()
	if want := "stored\ngot sweep the sett\n"; err != nil || string(out) != want {
		t.Errorf("it printed %q (%v), want %q", out, err, want)
	}
}
