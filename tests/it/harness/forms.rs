//! A form to fill in, and somebody who does. Not here: forms with rules (`forms`), submissions that are
//! refused (`submissions`).

use serde_json::json;

use super::{Client, text};

impl Client<'_> {
    /// Makes a form with the text field `name`, which takes submissions: its id.
    pub(crate) async fn open_form(&self, title: &str) -> String {
        let field = json!({ "key": "name", "type": "TEXT", "label": "Name" });
        let input = json!({ "title": title, "definition": { "schema": 1, "fields": [field] } });
        let create = "mutation($input: CreateFormInput!) { createForm(input: $input) { form { id } } }";
        let made = self.run(create, json!({ "input": input })).await.expect_data(create);
        let form = text(&made["createForm"]["form"]["id"]);
        let publish =
            "mutation($id: ID!) { publishForm(input: {id: $id, baseRevision: 1}) { form { status } } }";
        let published = self.run(publish, json!({ "id": form })).await.expect_data(publish);
        assert_eq!(published["publishForm"]["form"]["status"], "OPEN");
        form
    }

    /// Fills in such a form: the id of the submission.
    pub(crate) async fn submit(&self, form: &str, name: &str) -> String {
        let query = "mutation($input: CreateSubmissionInput!) { createSubmission(input: $input) { submission { id } userErrors { message } } }";
        let input = json!({ "formId": form, "data": { "name": name } });
        let data = self.run(query, json!({ "input": input })).await.expect_data(query);
        text(&data["createSubmission"]["submission"]["id"])
    }
}
