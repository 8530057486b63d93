//! What a run says: deeds to standard output, remarks to standard error.

use std::io::Write;

use super::message::{Message, Severity};

/// Two places to write to. Writing never fails a run: a closed pipe must not leave a machine half
/// configured.
pub struct Report<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    is_journal: bool,
}

impl<'a> Report<'a> {
    /// Writes to these; for the journal, remarks get their priority in front.
    pub fn new(out: &'a mut dyn Write, err: &'a mut dyn Write, is_journal: bool) -> Self {
        Self { out, err, is_journal }
    }

    /// Something that was done, or would be.
    pub fn line(&mut self, text: &str) {
        writeln!(self.out, "{text}").ok();
    }

    /// A remark about a line of the file.
    pub fn message(&mut self, message: &Message) {
        self.remark(message.severity, &message.to_string());
    }

    /// All remarks, in their order.
    pub fn messages(&mut self, messages: &[Message]) {
        for message in messages {
            self.message(message);
        }
    }

    /// Something that is not as it should be, beyond the file.
    pub fn warning(&mut self, text: &str) {
        self.remark(Severity::Warning, &format!("warning: {text}"));
    }

    /// Why the run ends early or fails.
    pub fn error(&mut self, text: &str) {
        self.remark(Severity::Error, &format!("error: {text}"));
    }

    fn remark(&mut self, severity: Severity, text: &str) {
        let priority = match (self.is_journal, severity) {
            (false, _) => "",
            (true, Severity::Info) => "<6>",
            (true, Severity::Warning) => "<4>",
            (true, Severity::Error) => "<3>",
        };
        writeln!(self.err, "{priority}{text}").ok();
    }
}
