//! All that an operator sees of an org, to show that something changed nothing.

use credbroker::proto;

use super::client::Caller;

/// What the lists show, and what the journal says was done.
#[derive(Debug, PartialEq)]
pub struct State {
    pub projects: Vec<proto::Project>,
    pub environments: Vec<proto::Environment>,
    pub members: Vec<proto::Member>,
    pub api_keys: Vec<proto::ApiKey>,
    pub enrollment_tokens: Vec<proto::EnrollmentToken>,
    pub agents: Vec<proto::Agent>,
    pub tasks: Vec<proto::Task>,
    pub credentials: Vec<proto::Credential>,
    /// Action and position of every record that is not a refusal.
    pub done: Vec<(String, u64)>,
}

macro_rules! all {
    ($caller:ident, $org:ident, $service:ident . $call:ident, $request:ident, $rows:ident) => {{
        let request = proto::$request {
            org: $org.to_owned(),
            page_size: 200,
            ..Default::default()
        };
        let page = $caller.$service().$call(request).await.unwrap().into_inner();
        assert_eq!(
            page.next_page_token,
            "",
            "more than one page of {}",
            stringify!($rows)
        );
        page.$rows
    }};
}

impl State {
    pub async fn of(caller: &Caller, org: &str) -> State {
        State {
            projects: all!(
                caller,
                org,
                directory.list_projects,
                ListProjectsRequest,
                projects
            ),
            environments: all!(
                caller,
                org,
                directory.list_environments,
                ListEnvironmentsRequest,
                environments
            ),
            members: all!(caller, org, directory.list_members, ListMembersRequest, members),
            // To be seen is no change.
            api_keys: all!(caller, org, access.list_api_keys, ListApiKeysRequest, api_keys)
                .into_iter()
                .map(|key| proto::ApiKey {
                    last_used_time: None,
                    ..key
                })
                .collect(),
            enrollment_tokens: all!(
                caller,
                org,
                agents.list_enrollment_tokens,
                ListEnrollmentTokensRequest,
                enrollment_tokens
            ),
            agents: all!(caller, org, agents.list_agents, ListAgentsRequest, agents)
                .into_iter()
                // Being seen is no change.
                .map(|agent| proto::Agent {
                    last_seen_time: None,
                    last_seen_address: String::new(),
                    version: String::new(),
                    reported: Default::default(),
                    ..agent
                })
                .collect(),
            tasks: all!(caller, org, tasks.list_tasks, ListTasksRequest, tasks),
            credentials: all!(
                caller,
                org,
                credentials.list_credentials,
                ListCredentialsRequest,
                credentials
            ),
            done: caller
                .records()
                .await
                .into_iter()
                .filter(|record| record.outcome != "denied")
                // What the broker does by itself, whatever a test calls: it goes on at the provider's pace.
                .filter(|record| record.action != "account.revoke_tokens")
                .map(|record| (record.action, record.position))
                .collect(),
        }
    }
}
