//! From an access token as it was shown to whom it speaks for: by its own signed word, or
//! by what its issuer says of it when asked.

use std::rc::Rc;

use sha2::{Digest, Sha256};

use super::claims::{Claims, Expected};
use super::credentials::Credentials;
use super::{Memory, Principal, Refused, Resource, Sender, Sha256Digest};
use super::{binding, dpop, introspection, jwks, jwt};
use crate::config::{Introspection, Issuer};
use crate::error::Error;
use crate::platform::{Clock, Platform};

/// One token, and all it is judged by.
pub(super) struct Judging<'a, P> {
    pub(super) platform: &'a P,
    pub(super) memory: &'a Memory,
    pub(super) issuers: &'a [Issuer],
    pub(super) sender: Sender<'a>,
    pub(super) resource: &'a Resource,
    pub(super) shown: Credentials<'a>,
}

impl<'a, P: Platform> Judging<'a, P> {
    /// The token's subject.
    pub(super) async fn principal(&self) -> Result<Principal, Error> {
        let here = self.resource.tenant.as_deref();
        let mut known = self
            .issuers
            .iter()
            .filter(|issuer| issuer.is_known_at(here));
        let asked = known.find_map(|issuer| {
            let introspection = issuer.introspection.as_ref()?;
            Some((issuer, introspection))
        });
        let (issuer, claims) = match asked {
            Some((issuer, introspection)) if !jwt::is_one(self.shown.token) => {
                (issuer, self.told_claims(issuer, introspection).await?)
            }
            Some(_) | None => self.signed_claims().await?,
        };
        if let Some(thumbprint) = binding::key(&claims) {
            dpop::prove(self, thumbprint).await?;
        }
        Principal::of(issuer, &claims, here).map_err(|refused| self.refuse(refused))
    }

    fn refuse(&self, refused: Refused) -> Error {
        refused.rejection(self.resource, self.shown.scheme)
    }

    fn expected(&self, issuer: &'a Issuer) -> Expected<'a> {
        Expected {
            issuer,
            resource: self.resource,
            now: self.platform.clock().now(),
        }
    }

    fn check_binding(&self, issuer: &Issuer, claims: &Claims) -> Result<(), Refused> {
        let certificate = self.sender.peer.and_then(|peer| peer.certificate.as_ref());
        binding::check(issuer, claims, self.shown.scheme, certificate)
    }

    /// What its issuer says of a token that says nothing itself.
    async fn told_claims(
        &self,
        issuer: &'a Issuer,
        introspection: &Introspection,
    ) -> Result<Rc<Claims>, Error> {
        let (memory, token) = (&self.memory.introspection, self.shown.token);
        let claims = introspection::ask(self.platform, memory, introspection, token).await?;
        let claims = claims.ok_or_else(|| self.refuse(Refused("The token is not active.")))?;
        introspection::check(&claims, &self.expected(issuer))
            .and_then(|()| self.check_binding(issuer, &claims))
            .map_err(|refused| self.refuse(refused))?;
        Ok(claims)
    }

    /// What a JSON Web Token says that is signed by its issuer.
    async fn signed_claims(&self) -> Result<(&'a Issuer, Rc<Claims>), Error> {
        let refuse = |refused: Refused| self.refuse(refused);
        let token = jwt::Token::parse(self.shown.token).map_err(refuse)?;
        // RFC 8414: issuers are compared as the text they are.
        let named = |issuer: &&Issuer| Some(issuer.issuer.as_str()) == token.claims.issuer();
        let here = self.resource.tenant.as_deref();
        let issuer = self.issuers.iter().find(named);
        let issuer = issuer.filter(|issuer| token.claims.may_be_of(issuer, here));
        let issuer =
            issuer.ok_or_else(|| refuse(Refused("The token's issuer is not trusted here.")))?;
        let expected = self.expected(issuer);
        // Before any key is fetched or any signature computed: nobody makes us work with a
        // token that could not be accepted anyway.
        token
            .check(&expected)
            .and_then(|()| self.check_binding(issuer, &token.claims))
            .map_err(refuse)?;
        if !self.signed(issuer, &token).await? {
            return Err(refuse(Refused("The token's signature is not valid.")));
        }
        Ok((issuer, Rc::new(token.claims)))
    }

    /// Whether a key the issuer publishes now has signed the token.
    async fn signed(&self, issuer: &Issuer, token: &jwt::Token<'_>) -> Result<bool, Error> {
        let (platform, memory) = (self.platform, self.memory);
        let digest: Sha256Digest = Sha256::digest(token.text()).into();
        let mut keys = jwks::load(platform, &memory.keys, issuer).await?;
        if memory
            .signers
            .get(&digest)
            .is_some_and(|signer| keys.holds(&signer))
        {
            return Ok(true);
        }
        if keys.lacks(token.key_id()) {
            keys = jwks::refresh(platform, &memory.keys, issuer, token.key_id(), keys).await;
        }
        let signer = keys
            .candidates(token.key_id(), token.algorithm())
            .find(|key| token.is_signed_by(key));
        if let Some(key) = signer {
            memory.signers.insert(digest, key.digest);
        }
        Ok(signer.is_some())
    }
}
