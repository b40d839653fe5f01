//! The model provider: what a token endpoint does with a refresh token, and the truth about every token.

/// How it behaves. The broker's connector says the same.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Each refresh brings a new refresh token, and an old one that is presented ends the grant.
    pub rotates: bool,
    /// Access tokens live on when newer ones are issued.
    pub survives: bool,
    /// For how long after a rotation the old refresh token is answered alike, in milliseconds.
    pub grace: Option<u64>,
    /// How long access tokens live, in milliseconds.
    pub life: u64,
    /// Whether answers say so.
    pub tells_life: bool,
}

/// What presented a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The broker's sending of this number, as it was sent.
    Sending(usize),
    /// The same, once more or long after, by something between.
    Echo(usize),
}

/// How a grant ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A used refresh token was presented: by what it had been used, for which tokens, and by what now.
    Replay {
        rotated: By,
        tokens: Tokens,
        replayed: By,
    },
    /// The owner took it back.
    Owner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tokens {
    pub access: usize,
    /// `None`: the old one stays.
    pub refresh: Option<usize>,
}

#[derive(Default)]
pub struct Grant {
    pub ended: Option<End>,
}

pub struct Refresh {
    pub grant: usize,
    used: Option<(u64, Tokens, By)>,
    pub presented: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct Access {
    pub grant: usize,
    pub expires: u64,
    /// When a newer one took its place, and by what.
    pub replaced: Option<(u64, By)>,
}

pub struct Provider {
    pub rules: Rules,
    pub grants: Vec<Grant>,
    pub refresh: Vec<Refresh>,
    pub access: Vec<Access>,
    /// Requests that something between holds back: when they arrive, with which refresh token, of which sending.
    held_back: Vec<(u64, usize, usize)>,
}

impl Provider {
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            grants: Vec::new(),
            refresh: Vec::new(),
            access: Vec::new(),
            held_back: Vec::new(),
        }
    }

    /// A person signs in: a new grant.
    pub fn sign_in(&mut self) -> usize {
        self.grants.push(Grant::default());
        self.new_refresh(self.grants.len() - 1)
    }

    fn new_refresh(&mut self, grant: usize) -> usize {
        self.refresh.push(Refresh {
            grant,
            used: None,
            presented: 0,
        });
        self.refresh.len() - 1
    }

    pub fn new_access(&mut self, grant: usize, now: u64) -> usize {
        self.access.push(Access {
            grant,
            expires: now + self.rules.life,
            replaced: None,
        });
        self.access.len() - 1
    }

    /// A refresh token is presented; `None` is `invalid_grant`.
    pub fn present(&mut self, refresh: usize, by: By, now: u64, keeps: bool) -> Option<Tokens> {
        self.refresh[refresh].presented += 1;
        let grant = self.refresh[refresh].grant;
        if self.grants[grant].ended.is_some() {
            return None;
        }
        if let Some((used, tokens, rotated)) = self.refresh[refresh].used {
            let alike = self.rules.grace.is_some_and(|grace| now < used + grace)
                && tokens
                    .refresh
                    .is_none_or(|next| self.refresh[next].used.is_none());
            if alike {
                return Some(tokens);
            }
            self.end(
                grant,
                End::Replay {
                    rotated,
                    tokens,
                    replayed: by,
                },
            );
            return None;
        }
        if !self.rules.survives {
            for access in self.access.iter_mut().filter(|access| access.grant == grant) {
                access.replaced.get_or_insert((now, by));
            }
        }
        let next = (self.rules.rotates && !keeps).then(|| self.new_refresh(grant));
        let tokens = Tokens {
            access: self.new_access(grant, now),
            refresh: next,
        };
        if next.is_some() {
            self.refresh[refresh].used = Some((now, tokens, by));
        }
        Some(tokens)
    }

    pub fn end(&mut self, grant: usize, end: End) {
        self.grants[grant].ended.get_or_insert(end);
    }

    pub fn hold_back(&mut self, until: u64, refresh: usize, sending: usize) {
        self.held_back.push((until, refresh, sending));
    }

    /// What was held back until now, in the order it arrives.
    pub fn arrived(&mut self, now: u64) -> Vec<(u64, usize, usize)> {
        let mut due: Vec<_> = self
            .held_back
            .iter()
            .filter(|held| held.0 <= now)
            .copied()
            .collect();
        self.held_back.retain(|held| held.0 > now);
        due.sort_unstable();
        due
    }

    pub fn is_alive(&self, grant: usize) -> bool {
        self.grants[grant].ended.is_none()
    }

    /// Whether model servers take this access token.
    pub fn accepts(&self, access: usize, now: u64) -> bool {
        let token = &self.access[access];
        token.replaced.is_none() && now < token.expires && self.is_alive(token.grant)
    }
}

pub fn refresh_text(refresh: usize) -> String {
    format!("rt-{refresh}")
}

pub fn access_text(access: usize) -> String {
    format!("at-{access}")
}

/// The number in a token.
pub fn number(token: &[u8]) -> usize {
    let text = std::str::from_utf8(token).unwrap();
    text[3..].parse().unwrap()
}
