//! What is small enough for JSON.

use serde::{Deserialize, Serialize};

/// What a server takes; exact sizes follow from the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Version of the protocol.
    pub protocol: u32,
    /// Hash of the plan, hexadecimal.
    pub plan: String,
    /// Bytes of a file of evaluation keys, exactly.
    pub key_bytes: u64,
    /// Most bytes of the payload of a frame.
    pub payload_bytes: u64,
    /// Segments of the plan.
    pub rounds: u32,
    /// Most samples in one request.
    pub batch: u32,
    /// Requests of one client that may be under way or wait to be fetched.
    pub requests: usize,
}

/// How far an upload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// Bytes are missing.
    Partial,
    /// All bytes are there; they are being checked.
    Checking,
    /// The keys can be used.
    Ready,
}

/// What the server has of a file of evaluation keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyStatus {
    /// How far it is.
    pub state: KeyState,
    /// Bytes there, from the beginning.
    pub have: u64,
    /// Bytes of the whole file.
    pub size: u64,
}

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestState {
    /// It waits for its turn.
    Queued,
    /// It is being evaluated.
    Running,
}

/// How far a request is that has no result yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Where it is.
    pub state: RequestState,
    /// Instructions done.
    pub done: usize,
    /// Instructions of the plan.
    pub total: usize,
}

/// Why something was refused, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The request makes no sense: no frame, no name, no such path.
    Malformed,
    /// More bytes than the plan explains.
    TooLarge,
    /// Keys or ciphertexts were refused by the engine.
    Refused,
    /// The server does not have these keys: upload them.
    UnknownKey,
    /// The server does not have this request: send it again.
    UnknownRequest,
    /// The name stands for something else already.
    Conflict,
    /// The upload is at another place: look where.
    Offset,
    /// This client has too much under way: try later.
    Limited,
    /// The server has too much under way: try later.
    Busy,
    /// The server ends: try later.
    Ending,
    /// The evaluation failed, which is the server's fault.
    Failed,
}

impl Code {
    /// Status of HTTP.
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::UnknownKey | Self::UnknownRequest => 404,
            Self::Conflict | Self::Offset => 409,
            Self::TooLarge => 413,
            Self::Refused => 422,
            Self::Limited => 429,
            Self::Failed => 500,
            Self::Busy | Self::Ending => 503,
        }
    }
}

/// Why something was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// For programs.
    pub code: Code,
    /// For people.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_stable_names() {
        let all = [Code::TooLarge, Code::UnknownKey, Code::Offset];
        let names = all.map(|code| serde_json::to_string(&code).expect("serialises"));
        assert_eq!(names, ["\"too-large\"", "\"unknown-key\"", "\"offset\""]);
    }
}
