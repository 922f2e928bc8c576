import { defineConfig } from 'vitest/config';

/** One file that the server hands out as it is; it is committed, so that whoever installs Replyline needs no Node. */
export default defineConfig(({ isSsrBuild }) => ({
  build: isSsrBuild
    ? {}
    : {
        target: 'es2022',
        // Newer than the oldest browser (Safari 16.4), as nothing in the style sheet needs to be rewritten for it.
        cssTarget: ['chrome123', 'firefox121', 'safari17.5'],
        lib: { entry: 'src/main.ts', formats: ['iife'], name: 'ReplylineWidget', fileName: () => 'widget.js' },
        outDir: '../replyline/web/static',
        emptyOutDir: false,
        sourcemap: false,
      },
  test: { include: ['test/**/*.test.ts'] },
}));
