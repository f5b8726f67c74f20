// The pages, in the order of a working day. Another page is a line here and a module with its component, which is
// given {me, site, rest}: the person, the chosen site, and what else the address says after page and site.
import { Bins } from "./bins.js";
import { Models } from "./models.js";
import { Overview } from "./overview.js";
import { Queue } from "./queue.js";
import { Records } from "./records.js";
import { texts } from "./texts.js";

/**
 * `name` is the first part of the address, `role` what a person must at least be, `title` a text. A page with
 * `everywhere` belongs to no site; one with `hidden` is not in the navigation.
 */
export const pages = [
  { name: "overview", role: "viewer", title: texts.overview.title, component: Overview },
  { name: "queue", role: "counter", title: texts.queue.title, component: Queue },
  { name: "bins", role: "viewer", title: texts.bins.title, component: Bins },
  { name: "records", role: "manager", title: texts.records.title, component: Records },
  { name: "models", role: "viewer", title: texts.models.title, component: Models, everywhere: true },
];

/** The page that a person of a role sees first; others see the first one. */
export const home = { counter: "queue" };
