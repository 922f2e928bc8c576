/** If there is no room for three panels side by side, they are tabs. */

const NARROW = matchMedia('(max-width: 759.98px)');
const KEYS = { ArrowRight: 1, ArrowLeft: -1 };

export function createTabs() {
  const tabs = [...document.querySelectorAll('[role="tab"]')];
  const panelOf = (tab) => document.getElementById(tab.getAttribute('aria-controls'));

  function select(name, { focus = false } = {}) {
    for (const tab of tabs) {
      const isIt = tab.dataset.tab === name;
      tab.setAttribute('aria-selected', String(isIt));
      tab.tabIndex = isIt ? 0 : -1;
      panelOf(tab).classList.toggle('current', isIt);
      if (isIt) delete tab.dataset.news;
      if (isIt && focus) tab.focus();
    }
  }

  function layOut() {
    for (const tab of tabs) {
      const panel = panelOf(tab);
      if (NARROW.matches) panel.setAttribute('role', 'tabpanel');
      else panel.removeAttribute('role');
    }
  }

  tabs.forEach((tab, place) => {
    tab.addEventListener('click', () => select(tab.dataset.tab));
    tab.addEventListener('keydown', (event) => {
      const step = KEYS[event.key];
      if (step) select(tabs.at((place + step) % tabs.length).dataset.tab, { focus: true });
    });
  });
  NARROW.addEventListener('change', layOut);
  layOut();
  select('widget');

  return {
    select,
    /** Something came there that is not seen now. */
    mark(name) {
      const tab = tabs.find((one) => one.dataset.tab === name);
      if (tab?.getAttribute('aria-selected') === 'false') tab.dataset.news = '';
    },
  };
}
