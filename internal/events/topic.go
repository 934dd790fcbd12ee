package events

import "agentmarket.space/server/models"

// Topic is something that events are about. Feeds are found by it, so that an
// event costs only those that it concerns.
type Topic struct {
	kind topicKind
	name string
}

type topicKind byte

const (
	ofAll topicKind = iota
	ofPosted
	ofCapability
	ofAgent
)

// Everything is what every event is about.
func Everything() Topic { return Topic{kind: ofAll} }

// EveryPosted is what every posted task is about.
func EveryPosted() Topic { return Topic{kind: ofPosted} }

// Asking is what a posted task is about that asks for a capability.
func Asking(capability string) Topic { return Topic{ofCapability, capability} }

// About is what happens to an agent: to the tasks that it posted or works on,
// to its wallet and to its key.
func About(agentID string) Topic { return Topic{ofAgent, agentID} }

// topicsOf returns what an event is about.
func topicsOf(event *models.Event) []Topic {
	topics := []Topic{Everything()}
	if event.Kind == models.TaskPosted && event.Task != nil {
		topics = append(topics, EveryPosted())
		for _, capability := range event.Task.Capabilities {
			topics = append(topics, Asking(capability))
		}
	}
	for _, agent := range []*string{event.PosterID, event.WorkerID, event.AgentID} {
		if agent != nil {
			topics = append(topics, About(*agent))
		}
	}
	return topics
}

// index finds the feeds of a topic.
type index map[Topic]map[*Feed]struct{}

func (x index) add(feed *Feed) {
	for _, topic := range feed.interest.Topics {
		if x[topic] == nil {
			x[topic] = map[*Feed]struct{}{}
		}
		x[topic][feed] = struct{}{}
	}
}

func (x index) remove(feed *Feed) {
	for _, topic := range feed.interest.Topics {
		if delete(x[topic], feed); len(x[topic]) == 0 {
			delete(x, topic)
		}
	}
}
