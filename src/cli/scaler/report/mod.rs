use super::arguments::ReportArguments;
use super::times::Times;
use crate::cli::Failure;
pub(super) async fn run(_: &ReportArguments, _: &Times) -> Result<(), Failure> {
    Ok(())
}
