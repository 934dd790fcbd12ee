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

// dnsServer is a name server on this machine: each question for a name's IPv4 address
// is answered with the next of its addresses, the last one for ever.
type dnsServer struct {
	mu      sync.Mutex
	records map[string][]string
}

// start answers questions until the test ends, and returns a resolver that asks it.
func (n *dnsServer) start(t *testing.T) *net.Resolver {
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
			_, _ = conn.WriteTo(n.respond(buffer[:size]), from)
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

// respond is the answer to a question, after RFC 1035, section 4.
func (n *dnsServer) respond(question []byte) []byte {
	const header, typeA = 12, 1
	var labels []string
	at := header
	for question[at] != 0 {
		labels = append(labels, string(question[at+1:at+1+int(question[at])]))
		at += 1 + int(question[at])
	}
	at++ // the root
	asked := binary.BigEndian.Uint16(question[at:])
	out := append([]byte{}, question[:at+4]...)
	out[2], out[3] = 0x81, 0x80                   // an answer, recursive
	copy(out[6:header], []byte{0, 0, 0, 0, 0, 0}) // nothing in it yet
	next := n.nextAddress(strings.ToLower(strings.Join(labels, ".")), asked == typeA)
	if next == "" {
		return out
	}
	out[7] = 1
	out = append(out, 0xc0, header, 0, typeA, 0, 1, 0, 0, 0, 0, 0, 4) // the name above, IN, no time to live
	return append(out, netip.MustParseAddr(next).AsSlice()...)
}

func (n *dnsServer) nextAddress(name string, ipv4 bool) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	left := n.records[name]
	if !ipv4 || len(left) == 0 {
		return ""
	}
	if len(left) > 1 {
		n.records[name] = left[1:]
	}
	return left[0]
}

// TestCheckHost: a name that leads to an address that may not be called is refused
// when it is set; one that is not found now is not.
func TestCheckHost(t *testing.T) {
	t.Parallel()
	resolver := (&dnsServer{records: map[string][]string{
		"public.example.com": {"93.184.215.14"}, "inside.example.com": {"10.1.2.3"}, "metadata.example.com": {"169.254.169.254"}, "here.example.com": {"127.0.0.1"},
	}}).start(t)
	open := New(Options{Resolver: resolver})
	allowing := New(Options{Resolver: resolver, AllowNetworks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	for _, row := range []struct {
		host            string
		taken, allowing bool
	}{
		{"public.example.com", true, true},
		{"inside.example.com", false, true},
		{"INSIDE.example.com", false, true},
		{"metadata.example.com", false, false},
		{"here.example.com", false, false},
		{"nowhere.example.com", true, true},
		{"1.1.1.1", true, true},
	} {
		for client, want := range map[*Client]bool{open: row.taken, allowing: row.allowing} {
			err := client.CheckHost(t.Context(), "url", "https://"+row.host+"/hook")
			if (err == nil) != want || err != nil && models.CodeOf(err) != models.InvalidInput {
				t.Errorf("%s: %v, want it to be taken: %v", row.host, err, want)
			}
		}
	}
}

// TestRebinding: a name that leads to a public address when it is checked and to
// this machine when it is called is not called.
func TestRebinding(t *testing.T) {
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
			t.Errorf("it was called: %v", err)
		}
	}
	if n := connections.Load(); n != 0 {
		t.Errorf("%d connections were made", n)
	}
}

// listenCounting listens on this machine and counts who connects.
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

// resolverEnv has the test below run as the process of its own that it starts:
// which resolver looks names up is fixed when a process begins.
const resolverEnv = "AGENTMARKET_TEST_SPELLINGS"

// TestSpellings: the C resolver takes 0x7f000001 for this machine, Go's takes it for
// a name. However an address is spelt and whichever resolver looks it up, this
// machine is not called. That the C resolver does call it where that is allowed
// shows that the spellings mean it. A program without cgo has Go's alone.
func TestSpellings(t *testing.T) {
	t.Parallel()
	if os.Getenv(resolverEnv) != "" {
		checkSpellings(t, os.Getenv(resolverEnv) == "cgo")
		return
	}
	resolvers, with := []string{"go", "cgo"}, "Go's resolver and with C's"
	if !build.Default.CgoEnabled {
		resolvers, with = resolvers[:1], "Go's resolver"
	}
	t.Cleanup(func() {
		trusttest.Report(t, "spellings", "however this machine is spelt, it is not called, with %s", with)
	})
	for _, resolver := range resolvers {
		t.Run(resolver, func(t *testing.T) {
			t.Parallel()
			child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSpellings$", "-test.v")
			child.Env = append(os.Environ(), resolverEnv+"="+resolver, "GODEBUG=netdns="+resolver)
			if out, err := child.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func checkSpellings(t *testing.T, cgo bool) {
	t.Helper()
	var connections atomic.Int32
	target := listenCounting(t, &connections)
	refusing := New(Options{AllowPorts: []uint16{target.Port()}})
	allowing := New(Options{AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	numbers := []string{"2130706433", "0x7f000001", "017700000001", "0177.0.0.1", "0x7f.0.0.1", "127.1", "127.0.1", "0x7f.1", "0x7F.0x0.0x0.0x1", "127.0.0.01"}
	spellings := append([]string{"127.0.0.1", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "localhost", "LOCALHOST", "localhost."}, numbers...)
	_, port, _ := strings.Cut(target.String(), ":")
	var calls sync.WaitGroup
	for _, host := range spellings {
		calls.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			if _, err := refusing.Post(ctx, "https://"+host+":"+port+"/", http.Header{}, nil); err == nil {
				t.Errorf("%s was called", host)
			}
			if got, err := refusing.CheckURL("url", "https://"+host+":"+port+"/"); err == nil {
				t.Errorf("%s was taken as %s", host, got)
			}
		})
	}
	calls.Wait()
	if n := connections.Load(); n != 0 {
		t.Fatalf("%d connections were made", n)
	}
	if !cgo {
		return
	}
	for _, host := range numbers[:1] {
		_, _ = allowing.Post(t.Context(), "https://"+host+":"+port+"/", http.Header{}, nil) // whom it calls hangs up
		if connections.Load() == 0 {
			t.Errorf("%s does not mean this machine to the C resolver: the test shows nothing", host)
		}
	}
}
