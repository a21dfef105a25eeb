"""People who judge: what their browser asks for and gets, over HTTP and signed by its key.

desk       what every handler works with
signing    who calls: an Ed25519 signature over each call, never a cookie; how often
routes     the table of /people/api, bodies and errors
places     a stage that people are asked in, as its rows say it
items      texts of items, out of the stage's artifact
joining    a key becomes an annotator; where it is paid
offering   the list of tasks
admitting  whether a stage takes one more person
giving     the next task: which, in which order, and its money
answers    what somebody may answer, from the order shown to the item's own and back
voting     an answer, taken back, skipped, reported
trust      what hidden and repeated items tell of a person
settling   answers count: held, paid or rejected, and the verdict on a person
history    what somebody did here
sweeping   what time brings: answers that nobody takes back any more, people who left
progress   a stage in numbers, for its owner and the operator
gathering  accepted votes, for the executor's join

Every call is one transaction, and the moves are the machine's (`machine.people`). Built by `app`, served by `web`.
"""
