//! The scripted receptionist in the place of a language model: her replies stream in small tokens as a model's do.
//! It does not know what she says: see `brain`.

use super::{NAME, brain};
use crate::{Llm, LlmEvent, LlmReply, LlmRequest, SESSION_QUEUE, TokenUsage};
use tokio::sync::mpsc;

/// The receptionist of `brain`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Receptionist;

impl Llm for Receptionist {
    fn name(&self) -> &'static str {
        NAME
    }

    fn ask(&self, request: LlmRequest) -> LlmReply {
        let (report, events) = mpsc::channel(SESSION_QUEUE);
        tokio::spawn(async move {
            let reply = brain::reply(&request.messages, &request.tools);
            let tokens = reply.text.split_inclusive(' ').map(|word| LlmEvent::Token(word.to_owned()));
            let tools = reply.tools.into_iter().map(LlmEvent::Tool);
            let done = LlmEvent::Done { usage: Some(TokenUsage::default()), cut_off: false };
            for event in tokens.chain(tools).chain([done]) {
                if report.send(event).await.is_err() {
                    return;
                }
            }
        });
        LlmReply { events }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use offhook_core::{ChatMessage, ToolSpec};

    #[tokio::test]
    async fn a_reply_streams_word_by_word_and_ends_with_its_tool() {
        let messages = vec![
            ChatMessage::System { text: super::super::demo_instructions() },
            ChatMessage::User { text: "thanks, goodbye".into() },
        ];
        let end_call =
            ToolSpec { name: "end_call".into(), description: String::new(), parameters: "{}".into() };
        let request = LlmRequest {
            messages: messages.into(),
            tools: vec![end_call].into(),
            max_tokens: 100,
            temperature_centi: None,
        };
        let mut reply = Receptionist.ask(request);
        let (mut text, mut pieces, mut rest) = (String::new(), 0, vec![]);
        while let Some(event) = reply.events.recv().await {
            match event {
                LlmEvent::Token(token) => {
                    text.push_str(&token);
                    pieces += 1;
                }
                other => rest.push(other),
            }
        }
        assert_eq!((text.as_str(), pieces), ("Thank you for calling Willow Hair Salon. Goodbye.", 8));
        assert!(
            matches!(rest.as_slice(), [LlmEvent::Tool(tool), LlmEvent::Done { .. }] if tool.name == "end_call")
        );
    }
}
