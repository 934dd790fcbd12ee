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
	topicAll topicKind = iota
	topicPostedTasks
	topicCapability
	topicAgent
)

// AllEventsTopic is what every event is about.
func AllEventsTopic() Topic { return Topic{kind: topicAll} }

// PostedTasksTopic is what every posted task is about.
func PostedTasksTopic() Topic { return Topic{kind: topicPostedTasks} }

// CapabilityTopic is what a posted task is about that asks for a capability.
func CapabilityTopic(capability string) Topic { return Topic{topicCapability, capability} }

// AgentTopic is what happens to an agent: to the tasks that it posted or works on,
// to its wallet and to its key.
func AgentTopic(agentID string) Topic { return Topic{topicAgent, agentID} }

// topicsOf returns what an event is about.
func topicsOf(event *models.Event) []Topic {
	topics := []Topic{AllEventsTopic()}
	if event.Kind == models.TaskPosted && event.Task != nil {
		topics = append(topics, PostedTasksTopic())
		for _, capability := range event.Task.Capabilities {
			topics = append(topics, CapabilityTopic(capability))
		}
	}
	for _, agent := range []*string{event.PosterID, event.WorkerID, event.AgentID} {
		if agent != nil {
			topics = append(topics, AgentTopic(*agent))
		}
	}
	return topics
}

// topicIndex finds the feeds of a topic.
type topicIndex map[Topic]map[*Feed]struct{}

func (x topicIndex) add(feed *Feed) {
	for _, topic := range feed.interest.Topics {
		if x[topic] == nil {
			x[topic] = map[*Feed]struct{}{}
		}
		x[topic][feed] = struct{}{}
	}
}

func (x topicIndex) remove(feed *Feed) {
	for _, topic := range feed.interest.Topics {
		if delete(x[topic], feed); len(x[topic]) == 0 {
			delete(x, topic)
		}
	}
}
