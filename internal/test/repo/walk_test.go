package repo

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// walkModule calls visit with each file of the module, by its path with slashes. It skips
// hidden folders except .ci, files of .gitignore, and nested modules.
func walkModule(t *testing.T, visit func(name string) error) {
	t.Helper()
	walkFolder(t, ".", visit)
}

// walkFolder is walkModule for a folder, which may be a nested module.
func walkFolder(t *testing.T, root string, visit func(name string) error) {
	t.Helper()
	ignored := regexp.MustCompile(`(^|/)node_modules(/|$)|\.(test|prof|out)$|^(server|agentmarket|bin|dist)$|^[^/]+\.(db|db-\w+|db\.\w+|key)$`)
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		slashed := filepath.ToSlash(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // deleted since its folder was read
		case err != nil:
			return err
		case name == root:
			return nil
		case strings.HasPrefix(entry.Name(), ".") && entry.Name() != ".ci" && entry.IsDir(), ignored.MatchString(slashed):
			if entry.IsDir() {
				return filepath.SkipDir
			}
			return nil
		case entry.IsDir():
			if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil {
				return filepath.SkipDir
			}
			return nil
		case !entry.Type().IsRegular(), name == ".git": // .git is a file in a worktree
			return nil
		}
		return visit(slashed)
	})
	if err != nil {
		t.Fatal(err)
	}
}
