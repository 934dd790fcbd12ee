package main

// claim is a statement of docs/reliability.md and the test that verifies it.
type claim struct {
	name        string // as the test reports it
	description string
	test        string
	engines     engine // engines on which it is verified
	inTest      engine // engines on which make test runs the test; -gate leaves them out
}

// engine is a set of database engines.
type engine int

const (
	sqlite engine = 1 << iota
	postgres
	bothEngines = sqlite | postgres
	noEngine    = engine(0)
)

// testRun is one invocation of a test binary. Runs are executed in parallel.
type testRun struct {
	pkg         string
	claims      []claim
	rapidChecks int  // checks of each property test; 0 if the package has none
	exclusive   bool // runs alone, because its claims are measured times
}

// testRuns returns all claims in the order of the table.
func testRuns() []testRun {
	return []testRun{
		{pkg: "./internal/test/e2e", claims: []claim{
			{"winner", "Of many concurrent accepts exactly one wins, and it is paid once.", "TestConcurrentAccept", bothEngines, sqlite},
			{"kill", "`kill -9` loses no acknowledged change and no webhook.", "TestKill", bothEngines, sqlite},
			{"linearizable", "All responses are linearizable.", "TestLinearizable", bothEngines, sqlite},
			{"failpoints", "A panic, a kill or a hang at any step loses nothing and does nothing twice.", "TestFailpoints", bothEngines, noEngine},
			{"disk", "A change is on disk before its response is sent.", "TestSyncBeforeResponse", sqlite, noEngine},
			{"backup", "A backup taken under load is complete.", "TestBackup", sqlite, sqlite},
			{"secrets", "No key or secret leaks into logs, files or responses.", "TestSecretLeaks", sqlite, sqlite},
		}},
		{
			pkg: "./compat", rapidChecks: 250,
			claims: []claim{
				{"model", "Random sequences of operations through GraphQL and REST match a model.", "TestModel", bothEngines, noEngine},
				{"strangers", "Malformed requests never cause a panic or a 5xx response.", "TestMalformedRequests", bothEngines, sqlite},
				{"bodies", "No REST request body causes a panic or a 5xx response.", "FuzzBody", sqlite, sqlite},
				{"documents", "No GraphQL document causes a panic or a 5xx response.", "FuzzDocument", sqlite, sqlite},
				{"filters", "A filter returns the same tasks through GraphQL and REST.", "FuzzFilter", sqlite, sqlite},
				{"doors", "The same operations through GraphQL and REST lead to the same state.", "FuzzParity", sqlite, sqlite},
			},
		},
		{pkg: "./graph/transport", claims: []claim{
			{"frames", "The server follows the WebSocket protocol whatever a client sends.", "FuzzFrame", sqlite, sqlite},
		}},
		{pkg: "./internal/test/e2e", exclusive: true, claims: []claim{
			{"slow", "Slow subscribers are disconnected and do not delay others.", "TestSlowConsumers", sqlite, noEngine},
			{"sockets", "Ten thousand idle WebSockets use little memory and receive events at once.", "TestIdleSockets", sqlite, noEngine},
		}},
		{pkg: "./internal/test/e2e/webhooks", exclusive: true, claims: []claim{
			// make test runs the test too, but does not check the delay.
			{"fast-receivers", "Few webhooks arrive twice after a kill, even if receivers respond at once.", "TestKill_fastReceivers", sqlite, sqlite},
			{"hostile", "Hostile webhook receivers do not delay others and cannot redirect requests.", "TestHostileReceivers", sqlite, noEngine},
		}},
		{pkg: "./internal/outbound", claims: []claim{
			{"addresses", "Private addresses are never called.", "TestForbiddenAddresses", sqlite, sqlite},
			{"spellings", "Private addresses in other notations are never called.", "TestAddressNotations", sqlite, sqlite},
			{"urls", "Every accepted URL is callable, over TLS and with a host.", "FuzzCheckURL", sqlite, sqlite},
			{"signatures", "A signature depends only on the body and the secret.", "FuzzSign", sqlite, sqlite},
		}},
		{pkg: "./internal/test/trust/mutants", claims: []claim{
			{"bugs", "Each of ten bugs injected into the program makes a test fail.", "TestInjectedBugs", sqlite, noEngine},
		}},
	}
}
