//! The admin API's address and token, which a reload can change.

use std::rc::Rc;

use tokio::sync::Notify;

use super::state::Control;
use crate::admin;
use crate::config::Config;
use crate::config::model::Secret;

/// What becomes of the admin API: another one (or none), if its address is another.
pub(super) type Prepared = Option<Option<admin::Bound>>;

impl Control {
    /// Serves the admin API; the one before finishes its answers and ends.
    pub(super) fn serve_admin(&mut self, bound: Option<admin::Bound>) {
        if let Some((_, stop)) = self.api.take() {
            stop.notify_one();
        }
        if let Some(bound) = bound {
            let stop = Rc::new(Notify::new());
            self.api = Some((bound.access(), stop.clone()));
            tokio::task::spawn_local(bound.serve(self.handle(), async move { stop.notified().await }));
        }
    }

    /// Binds the admin API's address if it is another than before.
    ///
    /// **Errors**: it cannot be listened on; nothing has changed then.
    pub(super) fn prepare_admin(&self, config: &Config) -> Result<Prepared, String> {
        if config.admin.bind == self.current.config.admin.bind {
            return Ok(None);
        }
        admin::Bound::bind(&config.admin).map(Some).map_err(|error| error.to_string())
    }

    /// Puts the new address, or the new token, in force.
    pub(super) fn adopt_admin(&mut self, config: &Config, prepared: Prepared) {
        match prepared {
            Some(bound) => {
                match &bound {
                    Some(bound) => tracing::info!("admin API on {}", bound.address()),
                    None => tracing::info!("the admin API is off"),
                }
                self.serve_admin(bound);
            }
            None => {
                let token = config.admin.token.as_ref().map(Secret::expose);
                if let Some((access, _)) = &self.api
                    && token != self.current.config.admin.token.as_ref().map(Secret::expose)
                {
                    access.set_token(token);
                    tracing::info!("the admin API has another token");
                }
            }
        }
    }
}
