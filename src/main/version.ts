// What this program calls itself: in the API's document, in answers, towards receivers of events.

export const version = '0.1.0'
