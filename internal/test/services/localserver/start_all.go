package localserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// StartAll starts PostgreSQL and NATS for tests that share them, and returns the
// settings by which tests find them, and what stops them. What is missing is
// installed where that may be done; it is an error where it may not.
func StartAll(ctx context.Context) (env []string, stop func() error, err error) {
	if err := installMissing(ctx); err != nil {
		return nil, nil, err
	}
	// The data outlive no test: what a power cut would take is not worth waiting for.
	store, err := NewPostgres(ctx, "fsync=off", "shared_buffers=256MB", "log_min_messages=fatal")
	if err != nil {
		return nil, nil, err
	}
	bus, err := NewNATS(ctx)
	if err != nil {
		return nil, nil, errors.Join(err, store.Remove())
	}
	stop = func() error { return errors.Join(store.Stop(FastShutdown), store.Remove(), bus.Remove()) }
	if err := errors.Join(store.Start(ctx), bus.Start(ctx)); err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	return []string{"AGENTMARKET_TEST_POSTGRES=" + store.Address(), "AGENTMARKET_TEST_NATS=" + bus.Address()}, stop, nil
}

// installMissing installs what is missing, as root on Debian.
func installMissing(ctx context.Context) error {
	missing := MissingPackages()
	if len(missing) == 0 {
		return nil
	}
	err := fmt.Errorf("missing %s: install it (Debian: apt-get install %[1]s)", strings.Join(missing, " "))
	if _, found := exec.LookPath("apt-get"); found != nil || os.Getuid() != 0 {
		return err
	}
	fmt.Fprintln(os.Stderr, "testservices: installing", strings.Join(missing, " "))
	for _, args := range [][]string{{"-q", "update"}, append([]string{"-q", "install", "-y", "--no-install-recommends"}, missing...)} {
		install := exec.CommandContext(ctx, "apt-get", args...)
		install.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if text, failed := install.CombinedOutput(); failed != nil {
			return errors.Join(err, fmt.Errorf("%w: %s", failed, text))
		}
	}
	if len(MissingPackages()) > 0 {
		return err
	}
	return nil
}
