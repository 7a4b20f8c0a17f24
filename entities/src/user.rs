//! stub
/// What an account may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role { Admin, Manager, Editor, Collector, Viewer }
