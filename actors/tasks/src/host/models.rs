//! A step's model calls: reserved in the journal before they are made, and recorded whole after.

use helix_messages::OnBehalf;
use helix_ports::ProviderError;
use helix_protocol::{CallKey, Failure, JournalBody, ModelReply, ModelRequest, Most, Role, Spent, StepRecord, Timestamp};

use super::Host;
use super::words::Words;
use crate::budget;
use crate::telling;

impl Host {
    /// Refuses a call that could pass a limit, and records its reservation otherwise.
    async fn reserve(&mut self, call: &CallKey, most: Most) -> Result<(), Failure> {
        let held = self.held().await?;
        let within = budget::check(self.task.spec.budget, self.spent(), held, most);
        self.remember(within)?;
        // What an earlier owner set aside, whose reservation did not reach the journal, is there still.
        if !self.shared.calls.has(call) {
            let admitted = self.shared.admit(&self.task, most).await;
            let set_aside = self.remember(admitted)?;
            self.shared.calls.reserve(self.lease.task, call, set_aside);
        }
        let Spent { money, tokens } = most.known();
        let reserved = JournalBody::Reserved { call: call.clone(), money, tokens };
        let written = self.journal(reserved).await;
        if written.is_err() {
            self.shared.calls.release(call);
        }
        written
    }

    /// When the last step on the line was committed that asked a model; `None` where none did.
    pub(super) async fn asked_at(&self) -> Result<Option<Timestamp>, Failure> {
        let Some(turn) = &self.turn else { return Ok(None) };
        if has_asked(turn) {
            return Ok(Some(turn.committed_at));
        }
        // It did what the calls of one before it wanted, once a person or another task had answered.
        let head = turn.step.id;
        let line = self.shared.read(|records| async move { records.read().conversation(head).await }).await?;
        Ok(line.iter().rev().find(|step| has_asked(step)).map(|step| step.committed_at))
    }

    pub(super) async fn ask_model(&mut self, call: CallKey, request: ModelRequest) -> Result<ModelReply, Failure> {
        let quote = self.shared.args.models.quote(request.clone()).await?;
        // The call that an earlier owner left under way, or was about to make, is reserved already.
        if !self.replay.is_reserved(&call) {
            self.reserve(&call, quote.most).await?;
        }
        if !self.shared.calls.is_made(&call) {
            self.shared.args.events.show(telling::model_called(self.lease.task, &quote.provider, &quote.model));
        }
        // One line of steps is one conversation: it stays where its prompt is cached.
        let session = request.session.clone().or_else(|| Some(self.task.attempt.to_string()));
        let request = ModelRequest { idempotency_key: Some(call.0.clone()), session, ..request };
        let models = self.shared.args.models.on_behalf(OnBehalf {
            owner: self.task.owner,
            project: self.task.project,
            actor: self.task.spec.work.kind().to_owned(),
            task: Some(self.task.id),
            step: Some(self.ordinal),
            ..OnBehalf::default()
        });
        let words = Words::new(&self.shared, &self.task, self.ordinal);
        let answer = words.show(models, request);
        match self.shared.calls.join(self.lease.task, &call, answer).await {
            Ok(reply) => {
                self.journal(JournalBody::Replied { call: call.clone(), reply: reply.clone() }).await?;
                let usage = &reply.usage;
                self.shared.calls.forget(&call);
                self.unanswered = None;
                self.shared.args.events.show(telling::model_replied(
                    self.lease.task,
                    &reply.model,
                    usage.total_tokens(),
                    usage.cost,
                ));
                Ok(reply)
            }
            Err(error) => {
                let uncertain = matches!(error, ProviderError::Uncertain(_));
                let charged = if uncertain { quote.most.known() } else { Spent::default() };
                let reason = error.failure().message.clone();
                let failed = JournalBody::CallFailed { call: call.clone(), charged: charged.money, tokens: charged.tokens, reason };
                self.journal(failed).await?;
                self.shared.calls.forget(&call);
                self.unanswered = Some(error.clone());
                Err(error.into())
            }
        }
    }
}

/// True of a step that asked a model. One of before that was kept shows it by what the model said.
pub(crate) fn has_asked(step: &StepRecord) -> bool {
    !step.step.asked.is_empty() || step.step.messages.iter().any(|message| message.role == Role::Assistant)
}
