package main

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"agentmarket.space/server/bench/load"
)

const (
	// postgresVariable names the address of an empty PostgreSQL database.
	postgresVariable = "AGENTMARKET_TEST_POSTGRES"
	// idleReplicas is the number of servers on PostgreSQL.
	idleReplicas = 3
	// webhookPosts is the number of tasks posted in one round, one every webhookPause.
	webhookPosts = 20
	webhookPause = 150 * time.Millisecond
	// idleSettle is the time after the last webhook until the server counts as idle, and
	// idleFor the time for which its CPU time is measured.
	idleSettle = 22 * time.Second
	idleFor    = 10 * time.Second
)

// idleExperiment measures the time from a post to its webhook, and then the CPU time of
// servers that nobody uses.
func (b *bench) idleExperiment() experiment {
	goals := []string{"≤ 100", "≤ 0.5"}
	e := experiment{
		workloads: []workload{
			{name: "webhook after a post", unit: " ms p50", lowerIsBetter: true},
			{name: "idle", unit: " % of a core", lowerIsBetter: true},
		},
		contenders: []contender{{"AgentMarket on SQLite", b.idleStarter(1, ""), goals}},
	}
	if address := os.Getenv(postgresVariable); address != "" {
		e.contenders = append(e.contenders, contender{
			fmt.Sprintf("AgentMarket on PostgreSQL, the busiest of %d replicas", idleReplicas), b.idleStarter(idleReplicas, address), goals,
		})
	}
	return e
}

// idleStarter measures new servers in each round. Without a database address each has its
// own SQLite file.
func (b *bench) idleStarter(servers int, database string) startFunc {
	return func(context.Context) (measureFunc, func(), error) {
		return func(ctx context.Context) ([]sample, error) {
			receiver, err := newWebhookReceiver()
			if err != nil {
				return nil, err
			}
			defer receiver.close()
			var markets []*market
			for range servers {
				s, err := launch(ctx, b.webhookProduct(database, receiver.certificate))
				if err != nil {
					return nil, err
				}
				defer s.stop()
				markets = append(markets, &market{server: s})
			}
			delays, err := measureWebhooks(ctx, markets[0], receiver)
			if err != nil {
				return nil, err
			}
			idle, err := measureIdle(ctx, markets)
			return []sample{{figure: delays[len(delays)/2].Seconds() * 1000, p50: delays[len(delays)/2], p99: delays[len(delays)-1]}, {figure: idle}}, err
		}, func() {}, nil
	}
}

// webhookProduct is the product with a database, which may send webhooks to this machine.
func (b *bench) webhookProduct(database, certificate string) commandFunc {
	return func(ctx context.Context, addr, dir string) *exec.Cmd {
		cmd := product(b.productBinary)(ctx, addr, dir)
		cmd.Env = append(cmd.Env, "AGENTMARKET_ALLOW_NETWORKS=127.0.0.0/8", "SSL_CERT_FILE="+certificate, "SSL_CERT_DIR="+filepath.Dir(certificate))
		if database != "" {
			cmd.Env = append(cmd.Env, "AGENTMARKET_DATABASE="+database, "AGENTMARKET_SECRET_KEY=the benchmark's key of 32 bytes..")
		}
		return cmd
	}
}

// measureWebhooks posts tasks one after the other and returns the time from each request to
// its webhook, in ascending order.
func measureWebhooks(ctx context.Context, m *market, receiver *webhookReceiver) ([]time.Duration, error) {
	conn, err := load.Dial(ctx, m.addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // the connection is not used again
	word := fmt.Sprintf("webhook-%d", time.Now().UnixNano())
	for _, hook := range []string{"", fmt.Sprintf(`, webhookUrl: %q`, receiver.server.URL)} {
		var registered struct {
			RegisterAgent struct{ APIKey string }
		}
		request := graphql("", fmt.Sprintf(`mutation { registerAgent(input: {name: "bench-#########", capabilities: [%q]%s}) { apiKey } }`, word, hook), nil, `"apiKey":`, 1)
		if err := m.query(conn, request, &registered); err != nil {
			return nil, fmt.Errorf("register: %w", err)
		}
		m.keys = append(m.keys, registered.RegisterAgent.APIKey)
	}
	var delays []time.Duration
	for range webhookPosts {
		start := time.Now()
		if _, err := conn.Do(m.postsWithCapabilities([]string{word})[0], m.stamps.Next()); err != nil {
			return nil, fmt.Errorf("post: %w", err)
		}
		select {
		case arrived := <-receiver.arrivals:
			delays = append(delays, arrived.Sub(start))
		case <-time.After(waitForWebhook):
			return nil, errors.New("a webhook did not arrive")
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		time.Sleep(webhookPause)
	}
	slices.Sort(delays)
	return delays, nil
}

// waitForWebhook is the time after which a webhook counts as lost.
const waitForWebhook = 10 * time.Second

// measureIdle returns the CPU time of the busiest server, as a percentage of a core.
func measureIdle(ctx context.Context, markets []*market) (float64, error) {
	select {
	case <-time.After(idleSettle):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	before := make([]usage, len(markets))
	for i, m := range markets {
		var err error
		if before[i], err = m.usage(); err != nil {
			return 0, err
		}
	}
	select {
	case <-time.After(idleFor):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	var busiest time.Duration
	for i, m := range markets {
		after, err := m.usage()
		if err != nil {
			return 0, err
		}
		busiest = max(busiest, after.cpu-before[i].cpu)
	}
	return 100 * busiest.Seconds() / idleFor.Seconds(), nil
}

// webhookReceiver accepts webhooks and reports when they arrive.
type webhookReceiver struct {
	server      *httptest.Server
	arrivals    chan time.Time
	certificate string // file
}

func newWebhookReceiver() (*webhookReceiver, error) {
	r := &webhookReceiver{arrivals: make(chan time.Time, webhookPosts)}
	r.server = httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
		arrived := time.Now()
		if body, err := io.ReadAll(request.Body); err == nil && strings.Contains(string(body), "task.posted") {
			r.arrivals <- arrived
		}
	}))
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, err
	}
	r.certificate = filepath.Join(dir, "certificate.pem")
	return r, os.WriteFile(r.certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.server.Certificate().Raw}), 0o600)
}

func (r *webhookReceiver) close() {
	r.server.Close()
	os.RemoveAll(filepath.Dir(r.certificate)) //nolint:errcheck // a temporary folder
}
