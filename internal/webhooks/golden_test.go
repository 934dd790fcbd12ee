package webhooks

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"flag"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestTaskPosted_golden compares the request bytes with a golden file, except for
// the host and the line endings of the header.
func TestTaskPosted_golden(t *testing.T) {
	t.Parallel()
	checkGolden(t, "testdata/task_posted.golden", func(*models.Delivery) {})
}

// TestTaskAssigned_golden does the same for a subscribed event.
func TestTaskAssigned_golden(t *testing.T) {
	t.Parallel()
	checkGolden(t, "testdata/task_assigned.golden", func(d *models.Delivery) {
		d.Event, d.WorkerID = models.WebhookTaskAssigned, new("01995000-0000-7000-8000-0000000000b1")
		d.CreatedAt = models.NewTime(time.Date(2026, 3, 13, 12, 0, 0, 999999000, time.UTC))
	})
}

// checkGolden compares the request of a delivery, modified by change, with a file.
func checkGolden(t *testing.T, file string, change func(*models.Delivery)) {
	t.Helper()
	const (
		secret     = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
		deliveryID = "01995000-0000-7000-8000-0000000000d1"
		taskID     = "01995000-0000-7000-8000-0000000000a1"
	)
	at := time.Date(2026, 3, 13, 12, 0, 1, 0, time.UTC)
	raw := newRawReceiver(t)
	b := open(t, settings{roots: certPool(raw.receiver), allowNetworks: loopback(), clock: &clock{fixed: at}})
	agent, _ := b.addSubscriber(t, "https://"+raw.address+"/hook", "research")
	poster := b.addAgentWithID(t, "01995000-0000-7000-8000-0000000000c1")
	event := b.postTask(t, models.Task{
		ID: taskID, PosterID: poster, Title: "Summarize <this> & that: \"naïve\" 概要",
		Description: "Full text...\nwith a second line", Budget: 25, Capabilities: []string{"research", "summarization"},
		CreatedAt: models.NewTime(time.Date(2026, 3, 13, 12, 0, 0, 123456000, time.UTC)),
	})
	b.write(t, func(tx *database.Tx) error {
		err := tx.Model(&models.Secret{AgentID: agent}).Update("encrypted", b.cipher.Encrypt([]byte(secret), agent)).Error
		if err != nil {
			return err
		}
		delivery := models.Delivery{
			ID: deliveryID, AgentID: agent, EventID: event.ID, TaskID: taskID, Event: models.WebhookTaskPosted, Status: models.DeliveryPending, AttemptsLeft: 8,
		}
		change(&delivery)
		return tx.Create(&delivery).Error
	})

	testutil.Must(t, b.deliver(t.Context(), DeliverArgs{DeliveryID: deliveryID, Attempt: 1}, firstAttemptQueue))
	header, body, _ := strings.Cut(string(mustReceive(t, raw.requests)), "\r\n\r\n")
	text := strings.ReplaceAll(header, "\r\n", "\n") + "\n\n" + body
	text = strings.Replace(text, raw.address, "bot.example", 1)

	if *update {
		testutil.Must(t, os.WriteFile(file, []byte(text), 0o644))
	}
	want, err := os.ReadFile(file)
	testutil.Must(t, err)
	testutil.Equal(t, "request", text, string(want))
}

// rawReceiver records the raw bytes of a request.
type rawReceiver struct {
	receiver *receiver // provides the certificate
	address  string
	requests chan []byte
}

// newRawReceiver starts a rawReceiver that accepts one request.
func newRawReceiver(t *testing.T) rawReceiver {
	t.Helper()
	w := rawReceiver{receiver: newReceiver(t, nil), requests: make(chan []byte, 1)}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: w.receiver.TLS.Certificates})
	testutil.Must(t, err)
	w.address = listener.Addr().String()
	var done sync.WaitGroup
	done.Go(func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		var raw bytes.Buffer
		request, err := http.ReadRequest(bufio.NewReader(io.TeeReader(conn, &raw)))
		if err == nil {
			_, err = io.Copy(io.Discard, request.Body)
		}
		if err == nil {
			w.requests <- raw.Bytes()
			_, err = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		}
		if err := errors.Join(err, conn.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		testutil.Must(t, listener.Close())
		done.Wait()
	})
	return w
}

// standardSignature returns the Standard Webhooks signature of a request.
func standardSignature(t *testing.T, secret string, r receivedRequest) string {
	t.Helper()
	seconds, err := strconv.ParseInt(r.header.Get("webhook-timestamp"), 10, 64)
	testutil.Must(t, err)
	signature, err := outbound.SignStandardWebhook(secret, r.header.Get("webhook-id"), seconds, r.body)
	testutil.Must(t, err)
	return signature
}
