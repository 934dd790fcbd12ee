package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"agentmarket.space/server/bench/load"
)

// buildPeers builds the peers and reports those that are not available.
func (b *bench) buildPeers(ctx context.Context, dir string) {
	if err := installMercurius(ctx); err != nil {
		slog.Warn("SKIPPED: MERCURIUS needs npm, its packages, a C++ compiler and Node's headers", slog.Any("error", err))
	} else {
		b.mercurius = mercurius
	}
	program, err := compile(ctx, "peers/pocketbase", dir, "pocketbase", ".")
	if err != nil {
		slog.Warn("SKIPPED: POCKETBASE needs its modules", slog.Any("error", err))
		return
	}
	b.pocketbase = func(ctx context.Context, addr, dir string) *exec.Cmd {
		return exec.CommandContext(ctx, program, filepath.Join(dir, "pb_data"), addr)
	}
}

const mercuriusFolder = "peers/mercurius"

// installMercurius installs the packages of package-lock.json, unless they are up to date.
func installMercurius(ctx context.Context) error {
	lock, err := os.Stat(filepath.Join(mercuriusFolder, "package-lock.json"))
	if err != nil {
		return err
	}
	if installed, err := os.Stat(filepath.Join(mercuriusFolder, "node_modules", ".package-lock.json")); err == nil && installed.ModTime().After(lock.ModTime()) {
		return nil
	}
	npm := exec.CommandContext(ctx, "npm", "ci", "--no-audit", "--no-fund", "--loglevel=error")
	npm.Dir = mercuriusFolder
	if text, err := npm.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci: %w: %s", err, text)
	}
	return nil
}

func mercurius(ctx context.Context, addr, dir string) *exec.Cmd {
	script, err := filepath.Abs(filepath.Join(mercuriusFolder, "server.mjs"))
	if err != nil {
		script = mercuriusFolder // node reports the error
	}
	host, port, _ := net.SplitHostPort(addr)
	cmd := exec.CommandContext(ctx, "node", script, host, port, filepath.Join(dir, "mercurius.db"))
	cmd.Env = append(os.Environ(), "NODE_ENV=production")
	return cmd
}

// The equivalent requests to PocketBase's REST API.

const recordsPath = "/api/collections/tasks/records"

func (m *market) pocketbasePosts() []load.Request {
	return []load.Request{load.NewRequest("POST", recordsPath, nil, `{"title":"bench-`+load.Stamp+`","description":"`+loremIpsum()+
		`","budget":10,"requiredCapabilities":["bench","research"],"status":"open","poster":"`+m.keys[0]+`"}`, `"id":"`, 1)}
}

func (m *market) pocketbaseReads() []load.Request {
	var all []load.Request
	for _, id := range m.ids {
		all = append(all, load.NewRequest("GET", recordsPath+"/"+id, nil, "", `"id":"`+id+`"`, 1))
	}
	return all
}

func (*market) pocketbaseLists() []load.Request {
	return []load.Request{load.NewRequest("GET", recordsPath+"?perPage=20&skipTotal=1&sort=-created&filter=status%3D%22open%22", nil, "", `"title":"bench`, 20)}
}

// pocketbaseSubscription subscribes to all tasks over server-sent events.
func (m *market) pocketbaseSubscription(audience) load.Subscription {
	return load.Subscription{Addr: m.addr, Topic: "tasks/*", StampPrefix: `"title":"bench-`}
}

func loremIpsum() string { return strings.Repeat("lorem ipsum dolor sit amet ", 8)[:200] }
