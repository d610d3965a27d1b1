//! `subscriptions/listen`: one stream of the client's, fed by every upstream that can.

use super::reply::End;
use super::talk::Talk;

impl Talk {
    /// Opens the stream and keeps it fed.
    pub(super) async fn listen(&mut self) -> Result<(), End> {
        let got = self.exchange().await?;
        self.deliver(got).await
    }
}
