package outbound

import (
	"context"
	"encoding/binary"
	"errors"
	"go/build"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"agentmarket.space/server/internal/test/trust/trusttest"
	"agentmarket.space/server/models"
)

// dnsServer is a local DNS server. Each A query for a name returns the next of its
// addresses; the last one repeats.
type dnsServer struct {
	mu      sync.Mutex
	records map[string][]string
}

// start serves queries until the test ends and returns a resolver that uses the
// server.
func (s *dnsServer) start(t *testing.T) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		buffer := make([]byte, 1500)
		for {
			size, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(s.respond(buffer[:size]), from)
		}
	})
	t.Cleanup(func() {
		_ = conn.Close()
		serving.Wait()
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "udp4", conn.LocalAddr().String())
	}}
}

// respond returns the response to a query (RFC 1035, section 4).
func (s *dnsServer) respond(query []byte) []byte {
	const header, typeA = 12, 1
	var labels []string
	at := header
	for query[at] != 0 {
		labels = append(labels, string(query[at+1:at+1+int(query[at])]))
		at += 1 + int(query[at])
	}
	at++ // the root
	qtype := binary.BigEndian.Uint16(query[at:])
	out := append([]byte{}, query[:at+4]...)
	out[2], out[3] = 0x81, 0x80                   // a response, recursion available
	copy(out[6:header], []byte{0, 0, 0, 0, 0, 0}) // no records
	address := s.nextAddress(strings.ToLower(strings.Join(labels, ".")), qtype == typeA)
	if address == "" {
		return out
	}
	out[7] = 1
	out = append(out, 0xc0, header, 0, typeA, 0, 1, 0, 0, 0, 0, 0, 4) // the name of the query, IN, TTL 0
	return append(out, netip.MustParseAddr(address).AsSlice()...)
}

func (s *dnsServer) nextAddress(name string, ipv4 bool) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	remaining := s.records[name]
	if !ipv4 || len(remaining) == 0 {
		return ""
	}
	if len(remaining) > 1 {
		s.records[name] = remaining[1:]
	}
	return remaining[0]
}

// TestCheckHost checks that a host name with a forbidden address is rejected and that
// an unknown name is not.
func TestCheckHost(t *testing.T) {
	t.Parallel()
	resolver := (&dnsServer{records: map[string][]string{
		"public.example.com": {"93.184.215.14"}, "inside.example.com": {"10.1.2.3"}, "metadata.example.com": {"169.254.169.254"}, "here.example.com": {"127.0.0.1"},
	}}).start(t)
	strict := New(Options{Resolver: resolver})
	allowing := New(Options{Resolver: resolver, AllowNetworks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	for _, row := range []struct {
		host             string
		strict, allowing bool // accepted by the client
	}{
		{"public.example.com", true, true},
		{"inside.example.com", false, true},
		{"INSIDE.example.com", false, true},
		{"metadata.example.com", false, false},
		{"here.example.com", false, false},
		{"nowhere.example.com", true, true},
		{"1.1.1.1", true, true},
	} {
		for client, want := range map[*Client]bool{strict: row.strict, allowing: row.allowing} {
			err := client.CheckHost(t.Context(), "url", "https://"+row.host+"/hook")
			if (err == nil) != want || err != nil && models.CodeOf(err) != models.InvalidInput {
				t.Errorf("%s: %v, want accepted: %t", row.host, err, want)
			}
		}
	}
}

// TestPost_dnsRebinding checks that a name that resolves to a public address in CheckHost and
// to a local one in Post is not called.
func TestPost_dnsRebinding(t *testing.T) {
	t.Parallel()
	var connections atomic.Int32
	port := listenCounting(t, &connections)
	resolver := (&dnsServer{records: map[string][]string{"rebound.example.com": {"93.184.215.14", "127.0.0.1"}}}).start(t)
	client := New(Options{Resolver: resolver, AllowPorts: []uint16{port.Port()}})
	url := "https://rebound.example.com:" + strings.TrimPrefix(port.String(), "127.0.0.1:") + "/"
	if err := client.CheckHost(t.Context(), "url", url); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := client.Post(t.Context(), url, http.Header{}, nil); !errors.Is(err, ErrForbiddenAddress) {
			t.Errorf("got %v, want ErrForbiddenAddress", err)
		}
	}
	if n := connections.Load(); n != 0 {
		t.Errorf("%d connections, want 0", n)
	}
}

// listenCounting starts a local listener that counts its connections.
func listenCounting(t *testing.T, connections *atomic.Int32) netip.AddrPort {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			_ = conn.Close()
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		accepting.Wait()
	})
	return netip.MustParseAddrPort(listener.Addr().String())
}

// resolverEnv selects the resolver in the child process of TestAddressNotations. The
// resolver is fixed when a process starts.
const resolverEnv = "AGENTMARKET_TEST_RESOLVER"

// TestAddressNotations checks that no spelling of a loopback address is called, with either
// resolver. The C resolver takes 0x7f000001 for 127.0.0.1, Go's takes it for a name.
// The test also checks that a client that allows loopback reaches the listener with
// the C resolver, which shows that the spellings are valid. Without cgo only Go's
// resolver exists.
func TestAddressNotations(t *testing.T) {
	t.Parallel()
	if os.Getenv(resolverEnv) != "" {
		checkLoopbackSpellings(t, os.Getenv(resolverEnv) == "cgo")
		return
	}
	resolvers, description := []string{"go", "cgo"}, "Go's resolver and with C's"
	if !build.Default.CgoEnabled {
		resolvers, description = resolvers[:1], "Go's resolver"
	}
	t.Cleanup(func() {
		trusttest.Report(t, "spellings", "however this machine is spelt, it is not called, with %s", description)
	})
	for _, resolver := range resolvers {
		t.Run(resolver, func(t *testing.T) {
			t.Parallel()
			child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestAddressNotations$", "-test.v")
			child.Env = append(os.Environ(), resolverEnv+"="+resolver, "GODEBUG=netdns="+resolver)
			if out, err := child.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func checkLoopbackSpellings(t *testing.T, cgo bool) {
	t.Helper()
	var connections atomic.Int32
	target := listenCounting(t, &connections)
	strict := New(Options{AllowPorts: []uint16{target.Port()}})
	allowing := New(Options{AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	numbers := []string{"2130706433", "0x7f000001", "017700000001", "0177.0.0.1", "0x7f.0.0.1", "127.1", "127.0.1", "0x7f.1", "0x7F.0x0.0x0.0x1", "127.0.0.01"}
	spellings := append([]string{"127.0.0.1", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "localhost", "LOCALHOST", "localhost."}, numbers...)
	_, port, _ := strings.Cut(target.String(), ":")
	var calls sync.WaitGroup
	for _, host := range spellings {
		calls.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			if _, err := strict.Post(ctx, "https://"+host+":"+port+"/", http.Header{}, nil); err == nil {
				t.Errorf("%s was called", host)
			}
			if got, err := strict.CheckURL("url", "https://"+host+":"+port+"/"); err == nil {
				t.Errorf("%s was accepted as %s", host, got)
			}
		})
	}
	calls.Wait()
	if n := connections.Load(); n != 0 {
		t.Fatalf("%d connections, want 0", n)
	}
	if !cgo {
		return
	}
	for _, host := range numbers[:1] {
		_, _ = allowing.Post(t.Context(), "https://"+host+":"+port+"/", http.Header{}, nil) // the listener closes the connection
		if connections.Load() == 0 {
			t.Errorf("the C resolver does not resolve %s to loopback: the test is not meaningful", host)
		}
	}
}
