//! A step's model calls: reserved in the journal before they are made, and recorded whole after.

use helix_messages::{OnBehalf, SetAside};
use helix_ports::ProviderError;
use helix_protocol::{CallKey, Failure, JournalBody, ModelReply, ModelRequest, Money, Spent};

use super::Host;
use crate::budget::{self, Amount};
use crate::telling;

impl Host {
    /// Refuses a call that could pass a limit, and records its reservation otherwise.
    async fn reserve(&mut self, call: &CallKey, amount: Amount) -> Result<SetAside, Failure> {
        let spent = Amount { money: self.task.spent, tokens: self.task.tokens } + self.replay.committed();
        let within = budget::check(self.task.spec.budget, spent, amount);
        self.remember(within)?;
        let admitted = self.shared.admit(&self.task, amount.into()).await;
        let set_aside = self.remember(admitted)?;
        let reserved = JournalBody::Reserved { call: call.clone(), money: amount.money, tokens: amount.tokens };
        match self.journal(reserved).await {
            Ok(()) => Ok(set_aside),
            Err(failure) => {
                set_aside.free();
                Err(failure)
            }
        }
    }

    pub(super) async fn ask_model(&mut self, call: CallKey, request: ModelRequest) -> Result<ModelReply, Failure> {
        let quote = self.shared.args.models.quote(request.clone()).await?;
        let most = Amount { money: quote.money, tokens: quote.tokens };
        // The call that an earlier owner left under way is reserved already.
        let mut set_aside = None;
        if !self.shared.calls.has(&call) {
            set_aside = Some(self.reserve(&call, most).await?);
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
        let answer = async move { models.generate(request, None).await };
        match self.shared.calls.join(self.lease.task, &call, set_aside, answer).await {
            Ok(reply) => {
                self.journal(JournalBody::Replied { call: call.clone(), reply: reply.clone() }).await?;
                let usage = &reply.usage;
                self.shared.calls.settle(&call, Spent { money: usage.cost, tokens: usage.total_tokens() });
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
                let charged = if uncertain { most } else { Amount { money: Money::ZERO, tokens: 0 } };
                let reason = error.failure().message.clone();
                let failed = JournalBody::CallFailed { call: call.clone(), charged: charged.money, tokens: charged.tokens, reason };
                self.journal(failed).await?;
                self.shared.calls.settle(&call, charged.into());
                if let ProviderError::Retryable { retry_after, .. } = &error {
                    self.again_in = *retry_after;
                }
                Err(error.into())
            }
        }
    }
}
