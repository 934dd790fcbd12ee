package main

// claimSpec is what we promise and the test that shows it.
type claimSpec struct {
	name        string // as the test says it
	description string
	test        string
	engines     engine // where it is shown
}

// engine is where a run has its store.
type engine int

const (
	sqlite engine = 1 << iota
	postgres
	bothEngines = sqlite | postgres
)

// testRun is one command of tests. Those of one run go on beside each other.
type testRun struct {
	pkg         string
	claims      []claimSpec
	rapidChecks int  // of each core, where properties are looked at
	exclusive   bool // with no other run beside it: its claims are timed
}

// testRuns are all claims, in the order they are shown.
func testRuns() []testRun {
	return []testRun{
		{pkg: "./internal/test/e2e", claims: []claimSpec{
			{"winner", "of many agents one gets the task, and it is paid once", "TestConcurrentAccept", bothEngines},
			{"kill", "kill -9 loses nothing that was answered, and no webhook", "TestKill", bothEngines},
			{"linearizable", "all that clients are told fits into one order", "TestLinearizable", bothEngines},
			{"failpoints", "a panic, a kill or a halt at any step loses and doubles nothing", "TestFailpoints", bothEngines},
			{"disk", "what was answered is on the disk", "TestSyncBeforeResponse", sqlite},
			{"backup", "a backup taken under load is whole", "TestBackup", sqlite},
			{"secrets", "no key and no secret is where it does not belong", "TestSecretLeaks", sqlite},
		}},
		{
			pkg: "./compat", rapidChecks: 250,
			claims: []claimSpec{
				{"model", "any walk through both doors does as the model says", "TestModel", bothEngines},
				{"strangers", "what strangers send never finds the server at a loss", "TestMalformedRequests", bothEngines},
				{"bodies", "nor does any body sent to REST", "FuzzBody", sqlite},
				{"documents", "nor any GraphQL document", "FuzzDocument", sqlite},
				{"filters", "a filter finds the same through both doors", "FuzzFilter", sqlite},
				{"doors", "the same steps lead through both doors to the same state", "FuzzParity", sqlite},
			},
		},
		{pkg: "./graph/transport", claims: []claimSpec{
			{"frames", "whatever a client says on a socket, the server keeps to the protocol", "FuzzFrame", sqlite},
		}},
		{pkg: "./internal/test/e2e", exclusive: true, claims: []claimSpec{
			{"slow", "who does not read delays nobody and is cut off", "TestSlowConsumers", sqlite},
			{"sockets", "ten thousand sockets wait for little and hear at once", "TestIdleSockets", sqlite},
		}},
		{pkg: "./internal/test/e2e/webhooks", exclusive: true, claims: []claimSpec{
			{"hostile", "receivers of any kind hold up nobody and lead nowhere", "TestHostileReceivers", sqlite},
		}},
		{pkg: "./internal/outbound", claims: []claimSpec{
			{"addresses", "no address inside is called", "TestGuard", sqlite},
			{"spellings", "nor any other way to write one", "TestSpellings", sqlite},
			{"urls", "a URL that is taken can be called, over TLS and at a host", "FuzzCheckURL", sqlite},
			{"signatures", "a signature is of its bytes and its secret alone", "FuzzSign", sqlite},
		}},
		{pkg: "./internal/test/trust/mutants", claims: []claimSpec{
			{"bugs", "a test notices each of ten bugs put into the program", "TestBugs", sqlite},
		}},
	}
}
