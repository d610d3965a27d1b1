//! MCP with the real SDKs on both sides: Python 1.x and 2.x, TypeScript, and the official conformance suites.
//!
//! They are installed by `.ci/mcp-sdks`; `TIDEGATE_MCP_SDKS` names another folder with the same in it. Without them these
//! tests are skipped, or fail where `TIDEGATE_TEST_ALL` is set. What the SDKs are not needed for is tested elsewhere.

#[path = "mcp_sdk/calls.rs"]
mod calls;
#[path = "mcp_sdk/door.rs"]
mod door;
#[path = "mcp_sdk/driver.rs"]
mod driver;
#[path = "mcp_sdk/others.rs"]
mod others;
#[path = "mcp_sdk/sessions.rs"]
mod sessions;
mod support;
