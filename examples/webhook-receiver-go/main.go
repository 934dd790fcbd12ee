// Command webhook-receiver-go receives webhooks from AgentMarket and verifies their
// signatures.
package main

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	tolerance = 5 * time.Minute // maximum difference between the timestamp and now
	maxBody   = 1 << 20
)

// verify returns an error unless the request is recent and signed with the secret.
func verify(secret string, header http.Header, body []byte, now time.Time) error {
	id, timestamp := header.Get("webhook-id"), header.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || math.Abs(now.Sub(time.Unix(seconds, 0)).Seconds()) > tolerance.Seconds() {
		return errors.New("the timestamp is too old or in the future")
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil || len(key) == 0 { // with an empty key anyone could sign
		return errors.New("AGENTMARKET_WEBHOOK_SECRET is not a webhook secret")
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", id, timestamp, body)
	for signature := range strings.FieldsSeq(header.Get("webhook-signature")) { // two during secret rotation
		got, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(signature, "v1,"))
		if err == nil && hmac.Equal(got, mac.Sum(nil)) {
			return nil
		}
	}
	return errors.New("invalid signature")
}

func main() {
	secret, seen := os.Getenv("AGENTMARKET_WEBHOOK_SECRET"), &sync.Map{} // ids of handled deliveries; use a database in production
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err == nil {
			err = verify(secret, r.Header, body, time.Now())
		}
		var payload struct {
			Event string
			Task  struct{ ID, Title string }
		}
		if err == nil {
			err = json.Unmarshal(body, &payload)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		if _, duplicate := seen.LoadOrStore(r.Header.Get("webhook-id"), true); !duplicate {
			fmt.Printf("%s: %s %q\n", payload.Event, payload.Task.ID, payload.Task.Title) // %q: the title is untrusted
		}
	})
	listener, err := net.Listen("tcp", "127.0.0.1:"+cmp.Or(os.Getenv("PORT"), "3000"))
	if err == nil {
		fmt.Printf("listening at http://%s/\n", listener.Addr())
		err = (&http.Server{Handler: handler, ReadTimeout: 15 * time.Second}).Serve(listener)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
