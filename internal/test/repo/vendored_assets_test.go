package repo

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestVendoredFiles compares each vendored library of a page with the checksum in the
// README.md of its assets.
func TestVendoredFiles(t *testing.T) {
	t.Parallel()
	for _, assets := range []string{"graph/explorer/assets", "compat/reference/assets"} {
		readme, err := os.ReadFile(assets + "/README.md")
		if err != nil {
			t.Fatal(err)
		}
		listed := map[string]string{}
		for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` .* `([0-9a-f]{64})` \\|$").FindAllStringSubmatch(string(readme), -1) {
			listed[row[1]] = row[2]
		}
		names, err := filepath.Glob(assets + "/vendor/*")
		if err != nil {
			t.Fatal(err)
		}
		if len(names) != len(listed) || len(names) == 0 {
			t.Errorf("%s/vendor holds %v, its README.md lists %v", assets, names, listed)
		}
		for _, name := range names {
			library := strings.TrimSuffix(filepath.Base(name), ".gz")
			if got := unpackedSHA256(t, name); got != listed[library] {
				t.Errorf("%s has sha256 %s, its README.md says %q", name, got, listed[library])
			}
		}
	}
}

// unpackedSHA256 returns the SHA-256 of a decompressed file.
func unpackedSHA256(t *testing.T, name string) string {
	t.Helper()
	packed, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	unpacked, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, unpacked); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}
