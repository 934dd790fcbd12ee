package localserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// The environment variables by which tests find the servers.
const (
	PostgresEnv = "AGENTMARKET_TEST_POSTGRES"
	NATSEnv     = "AGENTMARKET_TEST_NATS"
)

// The environment variables that name servers for StartAll to use instead of starting its
// own. They do not make tests run on PostgreSQL; PostgresEnv does.
const (
	sharedPostgresEnv = "AGENTMARKET_SHARED_POSTGRES"
	sharedNATSEnv     = "AGENTMARKET_SHARED_NATS"
)

// Servers are a PostgreSQL and a NATS server for tests that share them.
type Servers struct {
	postgresURL, natsURL string
	stop                 func() error // nil if another process started them
}

// TestEnv returns the settings with which tests use the servers.
func (s *Servers) TestEnv() []string {
	return []string{PostgresEnv + "=" + s.postgresURL, NATSEnv + "=" + s.natsURL}
}

// SharedEnv returns the settings with which StartAll of a child process uses the servers.
func (s *Servers) SharedEnv() []string {
	return []string{sharedPostgresEnv + "=" + s.postgresURL, sharedNATSEnv + "=" + s.natsURL}
}

// Stop stops the servers and removes their files, unless another process started them.
func (s *Servers) Stop() error {
	if s.stop == nil {
		return nil
	}
	return s.stop()
}

// StartAll starts PostgreSQL and NATS, or uses the servers that a parent process shares.
// It installs missing packages as root on Debian and returns an error elsewhere.
func StartAll(ctx context.Context) (*Servers, error) {
	if postgresURL, natsURL := os.Getenv(sharedPostgresEnv), os.Getenv(sharedNATSEnv); postgresURL != "" && natsURL != "" {
		return &Servers{postgresURL: postgresURL, natsURL: natsURL}, nil
	}
	if err := installMissing(ctx); err != nil {
		return nil, err
	}
	// fsync is off because the data is deleted with the tests.
	postgres, err := NewPostgres(ctx, "fsync=off", "shared_buffers=256MB", "log_min_messages=fatal")
	if err != nil {
		return nil, err
	}
	nats, err := NewNATS(ctx)
	if err != nil {
		return nil, errors.Join(err, postgres.Remove())
	}
	stop := func() error { return errors.Join(postgres.Stop(FastShutdown), postgres.Remove(), nats.Remove()) }
	if err := errors.Join(postgres.Start(ctx), nats.Start(ctx)); err != nil {
		return nil, errors.Join(err, stop())
	}
	return &Servers{postgresURL: postgres.Address(), natsURL: nats.Address(), stop: stop}, nil
}

// installMissing installs the packages that are missing, as root on Debian.
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
