package e2e_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
)

// TestDiskFull: on a full disk writes fail with UNAVAILABLE and reads work. If the server
// is killed then, it continues once there is space, with every acknowledged change and
// nothing else.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	disk := mountSmallDisk(t)
	server := testserver.Start(t, "AGENTMARKET_DATABASE="+filepath.Join(disk, "agentmarket.db"), "AGENTMARKET_STARTING_CREDITS=1000000")
	poster := server.Register("Poster", nil)
	filler := fillDisk(t, disk)

	task := fmt.Sprintf(`{"title":"Task","description":%q,"budget":10}`, strings.Repeat("Work. ", 1500))
	posted := 0
	status, text := server.Do(http.MethodPost, "/api/tasks", poster.Key, task)
	for ; status == http.StatusOK; posted++ {
		status, text = server.Do(http.MethodPost, "/api/tasks", poster.Key, task)
	}
	if status != http.StatusServiceUnavailable || !strings.Contains(text, `"UNAVAILABLE"`) || !strings.Contains(text, "disk") {
		t.Errorf("a post on a full disk: %d %s", status, text)
	}
	testutil.Eventually(t, "the log entry about the full disk", func() bool {
		return strings.Contains(server.Log(), "the database disk is full")
	})
	has := func(credits int) {
		t.Helper()
		status, text := server.Do(http.MethodGet, "/api/wallet", poster.Key, "")
		if want := fmt.Sprintf(`"balance":%d`, credits); status != http.StatusOK || !strings.Contains(text, want) {
			t.Errorf("wallet: %d %s, want %s", status, text, want)
		}
	}
	has(1_000_000 - 10*posted)

	server.Kill()
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	server.Restart()
	has(1_000_000 - 10*posted)
	if status, text := server.Do(http.MethodPost, "/api/tasks", poster.Key, task); status != http.StatusOK {
		t.Errorf("a post with free space: %d %s", status, text)
	}
	has(1_000_000 - 10*(posted+1))
	server.Verify()
}

// mountSmallDisk mounts a file system of 16 MiB. Without root it skips the test.
func mountSmallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	switch err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); {
	case errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES):
		t.Skip("mounting a file system needs root")
	case err != nil:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fillDisk fills a disk and returns the file that does.
func fillDisk(t *testing.T, disk string) string {
	t.Helper()
	file, err := os.Create(filepath.Join(disk, "filler"))
	for chunk := make([]byte, 4096); err == nil; {
		_, err = file.Write(chunk)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Name()
}
