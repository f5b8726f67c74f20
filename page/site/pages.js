// The pages, in the order of a working day. Another page is a line here and a module with its component, which is
// given {me, site, rest}: the person, the chosen site, and what else the address says after page and site.
import { Queue } from "./queue.js";
import { texts } from "./texts.js";

/**
 * `name` is the first part of the address, `role` what a person must at least be, `title` a text. A page with
 * `everywhere` belongs to no site; one with `hidden` is not in the navigation.
 */
export const pages = [{ name: "queue", role: "counter", title: texts.queue.title, component: Queue }];
